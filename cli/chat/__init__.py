"""The command `chat`: a conversation in the terminal."""
