"""Measurements that are reported; each prints its method and ends in one line of JSON."""
