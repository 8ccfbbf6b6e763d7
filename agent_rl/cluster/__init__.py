"""A run's parts as actors of Ray, on one machine or many: rollout workers, inference replicas, learner ranks.

Ray places and restarts processes and moves bytes; this package has neither a scheduler nor a protocol of its own. The
training loop stays where it is: it asks a `Site` for a learner and for players, and `ClusterSite` is one.
"""
