//! Small programs that a newcomer reads first: `old_client` and `failover`.
