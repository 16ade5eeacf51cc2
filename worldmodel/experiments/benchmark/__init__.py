"""Methods x environments x seeds: suite -> cells -> run folders -> results.csv -> report.html."""
