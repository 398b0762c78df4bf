"""Several processes: front ends round one engine process, and a supervisor. docs/architecture.md has the drawing.

supervisor      starts and watches the others
child           what every one of those begins with
front_end       the application in a process; its queue is `client`
engine_process  what is resident in a process; `host` serves it to front ends
messages        what they say to each other
outbox          what of it waits to be sent
arena, board, table, memory    what they share
"""
