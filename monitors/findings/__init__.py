"""What is wrong: samples judged by the advisors, what is kept of it, and the verdict over a page."""
