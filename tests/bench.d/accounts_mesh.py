"""The same as `accounts`, with publishers and subscribers on different nodes of a cluster."""

import accounts
from cluster import Cluster


def run(folder, runs, part, targets):
    start = lambda who, settings: Cluster(folder, who, settings)
    accounts.measure_all(start, lambda cluster: cluster.nodes[:2], "from node to node", runs, part)
