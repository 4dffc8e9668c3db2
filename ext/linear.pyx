"""Is there an order in which one copy would have given these answers? The search of one key.

The search is in C: `linear.h`, with `linear_memory.h` for what was tried and `linear_tree.h` for
texts that grow. Here are the arguments, the errors, the GIL, and models that are written in Python.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset


cdef extern from "linear.h" nogil:
    enum:
        LINEAR_READ
        LINEAR_WRITE
        LINEAR_SWAP
        LINEAR_UNLESS
        LINEAR_MAYBE
        LINEAR_APPEND
        LINEAR_PUT
        LINEAR_PUT_STALE
        LINEAR_PUT_MAYBE
        LINEAR_CALLED
        LINEAR_RIGHT
        LINEAR_WRONG
        LINEAR_TRIES
        LINEAR_CONFIGURATIONS
        LINEAR_SECONDS
        LINEAR_FAILED
        LINEAR_NO_MEMORY

    const uint64_t LINEAR_OFF

    ctypedef struct linear_tree:
        size_t count

    ctypedef struct linear_step:
        uint64_t a
        uint64_t b
        int kind

    ctypedef struct linear_text:
        const uint8_t *bytes
        size_t length

    ctypedef struct linear_order:
        size_t length
        uint32_t *operations

    ctypedef struct linear_memory:
        size_t count

    ctypedef struct linear_search:
        size_t known
        size_t unknown
        const linear_step *steps
        const uint32_t *twins
        const uint32_t *at
        const linear_tree *tree
        const linear_text *texts
        int (*call)(void *, size_t, uint64_t, uint64_t *) noexcept nogil
        int (*poll)(void *) noexcept nogil
        void *self
        uint64_t tries_max
        uint64_t configurations_max
        int64_t deadline
        int explain
        uint64_t state
        uint64_t tries
        size_t depth
        linear_order **longest
        linear_memory memory

    int64_t linear_now()
    int linear_tree_begin(linear_tree *)
    void linear_tree_end(linear_tree *)
    int linear_tree_plant(linear_tree *, const uint8_t *, size_t)
    uint64_t linear_tree_walk(const linear_tree *, uint64_t, const uint8_t *, size_t)
    int linear_begin(linear_search *)
    int linear_run(linear_search *)
    void linear_end(linear_search *)
    size_t linear_operation(const linear_search *, size_t)


READ, WRITE, SWAP, UNLESS, MAYBE = (
    LINEAR_READ, LINEAR_WRITE, LINEAR_SWAP, LINEAR_UNLESS, LINEAR_MAYBE)
APPEND, PUT, PUT_STALE, PUT_MAYBE = LINEAR_APPEND, LINEAR_PUT, LINEAR_PUT_STALE, LINEAR_PUT_MAYBE

RIGHT, WRONG, UNDECIDED = "right", "wrong", "undecided"
REASONS = {
    LINEAR_TRIES: "tries", LINEAR_CONFIGURATIONS: "configurations", LINEAR_SECONDS: "seconds"}

PLACES_MAX = (1 << 31) - 2


cdef class Tree:
    """All beginnings of some texts; a state is a text that is one of them, or any other."""

    cdef linear_tree tree

    def __cinit__(self, texts):
        cdef bytes text
        cdef list planted = sorted(set(texts))
        if linear_tree_begin(&self.tree) < 0:
            raise MemoryError
        for text in planted:
            if linear_tree_plant(&self.tree, text, len(text)) < 0:
                raise MemoryError

    def __dealloc__(self):
        linear_tree_end(&self.tree)

    def after(self, uint64_t state, bytes text):
        """The state after `text` is appended."""
        if state != LINEAR_OFF and state >= self.tree.count:
            raise ValueError(f"{state} is no state of this tree")
        return linear_tree_walk(&self.tree, state, text, len(text))


cdef class Problem:
    """The calls and returns of one key in the order of their times, and how an answer is judged."""

    cdef linear_search search
    cdef linear_step *steps
    cdef linear_text *texts
    cdef uint32_t *at
    cdef uint32_t *twins
    cdef list order
    cdef object tree, kept, step, error
    cdef list states
    cdef dict numbers

    def __cinit__(self, list called, list returned):
        cdef size_t count = len(called), i
        memset(&self.search, 0, sizeof(self.search))
        if len(returned) != <Py_ssize_t>count:
            raise ValueError("an operation has a call and a return, or None")
        if 2 * count > PLACES_MAX:
            raise ValueError(f"more than {PLACES_MAX // 2} operations of one key")
        self.at = <uint32_t *>malloc((2 * count + 1) * sizeof(uint32_t))
        self.steps = <linear_step *>calloc(count + 1, sizeof(linear_step))
        self.twins = <uint32_t *>malloc((count + 1) * sizeof(uint32_t))
        if self.at is NULL or self.steps is NULL or self.twins is NULL:
            raise MemoryError
        self.place(called, returned)
        self.search.at = self.at
        self.search.steps = self.steps
        self.search.twins = self.twins
        for i in range(self.search.unknown):
            self.twins[i] = i
        self.search.poll = poll
        self.search.self = <void *>self

    def __dealloc__(self):
        free(self.at)
        free(self.steps)
        free(self.texts)
        free(self.twins)

    cdef place(self, list called, list returned):
        """Known before unknown, each by their calls; calls come before returns of the same time."""
        cdef list by_call = sorted(range(len(called)), key=called.__getitem__)
        cdef list known = [i for i in by_call if returned[i] is not None]
        cdef list unknown = [i for i in by_call if returned[i] is None]
        cdef list returns = sorted(known, key=returned.__getitem__)
        cdef dict number = {}
        cdef size_t place = 0, next_return = 0
        self.order = known + unknown
        self.search.known = len(known)
        self.search.unknown = len(unknown)
        for i, operation in enumerate(self.order):
            number[operation] = i
            if i < self.search.known and returned[operation] < called[operation]:
                raise ValueError(f"operation {operation} returned before it was called")
        for operation in by_call:
            while (next_return < self.search.known
                    and returned[returns[next_return]] < called[operation]):
                self.at[2 * <size_t>number[returns[next_return]] + 1] = place
                place += 1
                next_return += 1
            i = number[operation]
            if i < self.search.known:
                self.at[2 * <size_t>i] = place
            else:
                self.at[self.search.known + <size_t>i] = place
            place += 1
        while next_return < self.search.known:
            self.at[2 * <size_t>number[returns[next_return]] + 1] = place
            place += 1
            next_return += 1

    cdef natively(self, list steps, uint64_t initial, Tree tree, list texts):
        """Judge by `steps`, one (kind, a, b) for each operation."""
        cdef bytes text
        cdef size_t i
        cdef dict last = {}
        self.search.state = initial
        if tree is not None:
            self.tree, self.kept = tree, texts
            self.search.tree = &tree.tree
            self.texts = <linear_text *>calloc(len(texts) + 1, sizeof(linear_text))
            if self.texts is NULL:
                raise MemoryError
            for i, text in enumerate(texts):
                self.texts[i].bytes = text
                self.texts[i].length = len(text)
            self.search.texts = self.texts
        for i, operation in enumerate(self.order):
            kind, a, b = steps[operation]
            if not 0 <= kind < LINEAR_CALLED:
                raise ValueError(f"{kind} is no kind of step")
            if kind == LINEAR_APPEND and (tree is None or not 0 <= a < len(texts)):
                raise ValueError(f"there is no text {a}")
            self.steps[i] = linear_step(a, b, kind)
            if i >= self.search.known:
                row = (kind, a, b)
                self.twins[i - self.search.known] = last.get(row, i - self.search.known)
                last[row] = i - self.search.known

    cdef by_calling(self, step, initial):
        """Judge by `step(operation, state)`; states are numbered as they turn up."""
        cdef size_t i
        self.step, self.states, self.numbers = step, [initial], {initial: 0}
        self.search.call = call
        for i in range(self.search.known + self.search.unknown):
            self.steps[i].kind = LINEAR_CALLED

    cdef judge(self, size_t operation, uint64_t state, uint64_t *after):
        right, then = self.step(self.order[operation], self.states[state])
        if not right:
            return False
        number = self.numbers.setdefault(then, len(self.states))
        if number == len(self.states):
            self.states.append(then)
        after[0] = number
        return True

    cdef run(self, tries, configurations, seconds, explain):
        cdef int64_t deadline = 0
        cdef int found
        if seconds is not None:
            deadline = linear_now() + <int64_t>(min(max(seconds, 0.0), 1e9) * 1e9)
        self.search.deadline = deadline
        self.search.tries_max = (1 << 63) if tries is None else tries
        self.search.configurations_max = (1 << 63) if configurations is None else configurations
        self.search.explain = bool(explain)
        try:
            with nogil:
                found = linear_begin(&self.search)
                if found == 0:
                    found = linear_run(&self.search)
            return self.verdict(found)
        finally:
            linear_end(&self.search)

    cdef verdict(self, int found):
        cdef size_t depth
        if found == LINEAR_NO_MEMORY:
            raise MemoryError
        if found == LINEAR_FAILED:
            raise self.error
        tries, configurations = self.search.tries, self.search.memory.count
        if found == LINEAR_RIGHT:
            order = [self.order[linear_operation(&self.search, depth)]
                     for depth in range(self.search.depth)]
            return RIGHT, tries, configurations, "", [order], {}
        if found == LINEAR_WRONG:
            orders, longest = self.longest() if self.search.explain else ([], {})
            return WRONG, tries, configurations, "", orders, longest
        return UNDECIDED, tries, configurations, REASONS[found], [], {}

    cdef longest(self):
        """(orders, operation -> which of them): for each operation the longest that it is in."""
        cdef size_t i, j
        cdef linear_order *order
        cdef dict seen = {}, longest = {}
        cdef list orders = []
        for i in range(self.search.known + self.search.unknown):
            order = self.search.longest[i]
            if order is NULL:
                continue
            if <size_t>order not in seen:
                seen[<size_t>order] = len(orders)
                orders.append([self.order[order.operations[j]] for j in range(order.length)])
            longest[self.order[i]] = seen[<size_t>order]
        return orders, longest


cdef int call(void *self, size_t operation, uint64_t state, uint64_t *after) noexcept with gil:
    try:
        return (<Problem>self).judge(operation, state, after)
    except BaseException as error:
        (<Problem>self).error = error
        return LINEAR_FAILED


cdef int poll(void *self) noexcept with gil:
    """Now and then: Ctrl-C ends a search."""
    try:
        PyErr_CheckSignals()
        return 0
    except BaseException as error:
        (<Problem>self).error = error
        return LINEAR_FAILED


def search(list called, list returned, list steps, *, uint64_t initial=0, Tree tree=None,
           list texts=None, tries=None, configurations=None, seconds=None, explain=False):
    """Search with a model that is one row a step: see the `.pyi`."""
    if len(steps) != len(called):
        raise ValueError("an operation has a step")
    cdef Problem problem = Problem(called, returned)
    problem.natively(steps, initial, tree, [] if texts is None else texts)
    return problem.run(tries, configurations, seconds, explain)


def search_calling(list called, list returned, step, initial, *, tries=None, configurations=None,
                   seconds=None, explain=False):
    """Search with a model that is a function: see the `.pyi`."""
    cdef Problem problem = Problem(called, returned)
    problem.by_calling(step, initial)
    return problem.run(tries, configurations, seconds, explain)
