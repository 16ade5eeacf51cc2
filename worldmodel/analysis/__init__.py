"""Statistics, probes, films and reports of what an agent has learnt."""
