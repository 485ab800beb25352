"""What stands around every page, and what all pages share: requests, states, lists, exports."""
