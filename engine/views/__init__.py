"""Who serves: numbered views, each naming a primary and a backup, agreed with those who are in it.

Two servers cannot tell a dead peer from one that they cannot reach, so a third decides. Every
server *pings* the view service and says the number of the view that it acts on, 0 if it has just
started; the answer is the present view. A server that is silent for `DEAD_PINGS` intervals, or
pings as a new life of itself, is dead to the service. Then, or when there is no backup and some
idle server could be one, the service goes on to the next view, under two rules:

* *Acknowledgement.* From view X it goes on only when the primary of X has pinged X. Until then it
  stays, if need be for ever: so there is at most one view that its primary does not know yet, and
  no two servers ever act as primary, each in a view that the other could not have missed.
* *Readiness.* The primary of X + 1 is the primary of X, or the backup of X if that has pinged X
  too, which a backup does when it holds all the data. A server that knows nothing is never
  promoted. (In view 1 nobody has data, and whoever pings first is primary.)

The second rule is more than the labs ask: there the primary vouches for its backup by acknowledging
late, and if the backup dies while data is copied to it the service stands still for ever.

The parts: `messages`; `machine`; `server`, the process; `client`; `trial`, the proof.

What it does not survive

* Its own death: it is one process and keeps its views in memory. While it is away the last view
  goes on serving, but nobody is replaced. Started again it knows nothing, begins at view 1 and
  makes whoever pings first primary, with data or without, beside an old primary who has not heard
  of it: `engine sim views --beyond amnesia` shows two. It must not be started again while servers
  of its earlier life are alive.
* A partition that cuts a whole view off it: nobody in reach is promoted, and nothing is served to
  those who cannot reach the view.

Both take what this service lacks: state on several machines, and a majority that decides.
"""
