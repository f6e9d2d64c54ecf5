"""The stages: each folder declares what it reads, what it writes and how one shard is made."""
