"""Extensions of asyncssh; the only place that uses its private names."""
