"""Captions and search over HTTP, by replicas of a model beside a live index.

app, page/      what the process that was started says to HTTP: routes, errors, bounds, meters. It holds no model
ray_serve       the replicas, started, watched and replaced by Ray Serve; the one file here that knows Ray
replica         what runs in each of them: requests that wait are answered together (batches)
server          the socket, and how it ends
"""
