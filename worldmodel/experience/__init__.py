"""Acting, collecting and replaying real steps."""
