"""HTTP in, mask out. Knows the engine only through `core.engine.Engine` and the model that it carries.

    api        what is read from a request, what is sent back
    core       the way of an image: decode, queue, engine, encode; the models; start and end
    codec      image files to pixels, masks to bytes
    telemetry  metrics, energy, traces
    cli        the command `mbunet`

Imports between the rooms point down this list. `app` puts one application together and `server` runs it; `settings`,
`problems` and `logs` are for all.

Four things are done otherwise than one would expect, since right after a run of the engine no cache holds the service's
own code and a thread that is woken costs as much as a small mask:

* A brief encoder runs in the engine's own thread where no image waits for it (`core.threads`, `core.pipeline`): waking
  another takes longer than it does.
* Routes for images take the request and give the response (`api.raw_routes`): FastAPI documents them, but what it does
  for parameters that they do not have, and for each layer on the way, is work that none of them needs.
* Their query is read here (`api.query`), not by FastAPI, which goes through a model's fields anew for every request: a
  third of a millisecond.
* Threads that decode and encode are of the class SCHED_BATCH, which wakes without preempting (`core.threads`): the
  engine's threads wait for each other at the end of every layer, so one that is preempted stops them all. A decoder
  that waits its turn costs nothing. So are those of the engine process that read what front ends ask
  (`processes.host`): where all cores are busy they are woken less often, for several requests at once.
"""
