"""Parts that several signals share."""
