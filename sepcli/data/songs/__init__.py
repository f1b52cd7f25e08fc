"""Batches of songs made on the device that trains: kind `songs`.

spec: the settings. memory: what is kept in memory. batches: what is made of it.
"""
