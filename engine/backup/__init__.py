"""A key/value store on two servers, of which the view service says who is which.

Any number of servers ping the view service (`engine.views`). The *primary* of the present view
puts the clients' operations into an order and forwards them to its *backup*, gets as well as puts;
an operation takes effect, and is answered, when the backup has it (`engine.relay`). A new backup is
first sent everything: the data, and the last answer of each client (`engine.sessions`), which is
what makes a repeated append happen once, whoever is asked again.

Why nothing acknowledged is lost, doubled or stale

* A primary that was replaced cannot answer: its backup acknowledges only what is forwarded in the
  view that it knows itself, and is by then primary of a later one. That it cannot reach its backup
  is no reason to answer alone: only the view service says so.
* A backup is promoted only if it holds all data: it pings the number of a view not before. And a
  primary serves only when the view service has taken note of its ping, in this life: so one that
  starts again with nothing is known for what it is.
* What is copied to a new backup, and what is forwarded to it, are cut at one point of the order:
  nothing takes effect while the copy is under way.

The parts: `messages`; `machine`; `server`, the process; `client`; `trial`, the proof.

What it does not survive

* The death of all who hold the data: memory is all there is. Primary and backup at once, or the
  primary while a new backup is being filled: then nobody is promoted, and requests wait for ever
  rather than be answered from nothing (`engine sim backup --beyond both_die`).
* The view service's death and rebirth (`engine.views`).
* A primary that reaches the view service but not its backup, while that reaches the view service
  too: both look alive to it, and no request can be answered until they meet. Not wrong, only stuck.

All three go away with a majority that decides, and a log on disk.
"""
