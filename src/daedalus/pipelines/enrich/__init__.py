"""The enrich stage: the embedding columns of a day, shard by shard, in this process or on Ray."""
