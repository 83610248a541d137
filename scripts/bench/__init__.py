"""Measurements that are reported; each prints its method and ends in one line of JSON."""

from scripts.threads import settle_threads

settle_threads()  # as the command does; here, because benchmarks import numpy at once
