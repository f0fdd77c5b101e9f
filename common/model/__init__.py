"""The domain's nouns as immutable values. No wire types, no I/O; see codec for the way across."""
