# The table of a map worker: feed it from a generator, combine it, write it as a section.


@cython.final
@cython.no_gc
cdef class GroupTable:
    """key -> list of values in the order they came; bounded by an estimate of its memory."""

    cdef dict groups          # exact keys -> list; of a tuple codec the encoded keys
    cdef int codec
    cdef uint32_t partitions
    cdef int64_t used, limit
    cdef readonly Py_ssize_t pairs
    cdef bint packed          # a Packed may be among the values
    cdef object packer        # made when needed: it holds 256 KiB
    cdef object last          # the value added last: the same object again costs nothing
    cdef groups_bytes scratch
    # A record whose map filled the table is gone on with when feed is called again.
    cdef object suspended, suspended_records
    cdef Py_ssize_t suspended_at

    def __cinit__(self, partitions, memory, codec="text"):
        if not 0 < partitions < 1 << 31:
            raise ValueError(f"{partitions} partitions: there must be at least one")
        self.partitions = partitions
        self.limit = memory
        self.codec = codec_number(codec)
        self.groups = {}

    def __dealloc__(self):
        groups_free(&self.scratch)

    @property
    def keys(self):
        """Distinct keys held."""
        return len(self.groups)

    @property
    def memory(self):
        """Estimate of the bytes held."""
        return self.used

    @property
    def full(self):
        """Whether the estimate has passed the limit."""
        return self.used > self.limit

    # --- adding ---

    cdef object pack(self, key, value):
        """A Packed of any value, or ValueTypeError."""
        cdef Packed packed = Packed.__new__(Packed)
        self.scratch.used = 0
        try:
            if groups_put(&self.scratch, value, 0) != GROUPS_OTHER:
                packed.data = PyBytes_FromStringAndSize(
                    <char *>self.scratch.bytes, self.scratch.used)
            else:
                if self.packer is None:
                    self.packer = msgpack.Packer()
                packed.data = self.packer.pack(value)
        except (TypeError, ValueError, OverflowError) as error:
            self.packer = None  # one that raised may keep half a value
            raise bad_value(key, value, str(error)) from error
        return packed

    cdef object kept(self, key, value, int64_t *cost):
        """What the table keeps of a value, and what that costs besides its place."""
        cdef Py_ssize_t size
        if value is self.last:
            cost[0] = 0
            return value
        try:
            size = groups_cost(value)
        except UnicodeEncodeError:
            raise bad_value(key, value, "it holds a lone surrogate") from None
        if size < 0:
            value = self.pack(key, value)
            size = PACKED_COST + PyBytes_GET_SIZE((<Packed>value).data)
            self.packed = True
        if size > <Py_ssize_t>GROUPS_VALUE_MAX:
            raise bad_value(key, value, f"it takes {size} bytes, and 1 GiB is the most")
        if type(value) is not Packed:
            self.last = value
            if Py_REFCNT(<PyObject *>value) > SHARED_COUNT:
                size = 0
        cost[0] = size
        return value

    cdef object checked_key(self, key):
        """The key as the table has it, or KeyTypeError."""
        cdef size_t size
        if self.codec == TEXT:
            if not PyUnicode_CheckExact(key):
                key = exact_key(TEXT, key)
            key_text(key, &size)
        else:
            key = exact_key(self.codec, key)
            if self.codec == INTEGER:
                key_integer(key)
                return key
            if self.codec == TUPLE:
                key = encode_tuple(key)
            size = PyBytes_GET_SIZE(key)
        if size > KEY_BYTES_MAX:
            raise wrong_key(key[:20], f"it has {size} bytes, and 64 MiB is the most")
        return key

    cdef int64_t key_cost(self, key) except -1:
        """What a key costs with a list of one value, but for the value itself."""
        if self.codec == INTEGER:
            return KEY_COST + 32
        if self.codec != TEXT:
            return KEY_COST + 40 + PyBytes_GET_SIZE(key)
        return KEY_COST + groups_cost(key)

    cdef int insert(self, key, value, int64_t cost) except -1:
        """Add a value as the table keeps it; a key that is new has not been checked yet."""
        cdef PyObject *found = PyDict_GetItemWithError(self.groups, key)
        if found == NULL:
            key = self.checked_key(key) if self.codec == TEXT else key
            self.groups[key] = [value]
            cost += self.key_cost(key)
        else:
            PyList_Append(<object>found, value)
            cost += SECOND_COST if PyList_GET_SIZE(<object>found) == 2 else SLOT_COST
        self.used += cost
        self.pairs += 1
        return 0

    cdef int put(self, key, value) except -1:
        cdef int64_t cost
        if self.codec != TEXT or not PyUnicode_CheckExact(key):
            key = self.checked_key(key)
        value = self.kept(key, value, &cost)
        return self.insert(key, value, cost)

    cdef int put_whole(self, iterator) except -1:
        """Add the pairs of a record once all of them are there and can be added."""
        cdef int64_t cost
        cdef list ready = []
        for item in iterator:
            check_pair(item)
            key = self.checked_key(item[0])
            value = self.kept(key, item[1], &cost)
            ready.append((key, value, cost))
        for key, value, cost in ready:
            self.insert(key, value, cost)
        return 0

    def add(self, key, value):
        """Add one pair."""
        self.put(key, value)

    # --- feeding ---

    cdef object resume(self, records, Py_ssize_t index):
        """The iterator of a record that filled the table, or None."""
        if self.suspended is None:
            return None
        if records is not self.suspended_records or index != self.suspended_at:
            raise RuntimeError(
                f"record {self.suspended_at} is half done: feed the same records from it on")
        iterator = self.suspended
        self.suspended = self.suspended_records = None
        return iterator

    def feed(self, map_function, str document, records, Py_ssize_t first=0, page=None, whole=False):
        """Call map(document, record) for records[first:], adding what it yields; the next index."""
        cdef Page words = Page(page)
        cdef Py_ssize_t index = first, count = len(records)
        cdef bint all_or_nothing = whole
        iterator = self.resume(records, first)
        while index < count:
            words.begin(index, len(self.groups))
            if iterator is None:
                iterator = pairs_of(map_function(document, records[index]))
            if all_or_nothing:
                self.put_whole(iterator)
            elif not self.drain(iterator):
                self.suspended, self.suspended_records = iterator, records
                self.suspended_at = index
                break
            iterator = None
            index += 1
            if self.used > self.limit:
                break
        words.end(len(self.groups))
        return index

    cdef bint drain(self, iterator) except -1:
        """Add pairs until the iterator ends (True) or the table is full (False)."""
        for item in iterator:
            if PyTuple_CheckExact(item) and PyTuple_GET_SIZE(item) == 2:
                self.put(<object>PyTuple_GET_ITEM(item, 0), <object>PyTuple_GET_ITEM(item, 1))
            else:
                check_pair(item)
                self.put(item[0], item[1])
            if self.used > self.limit:
                return False
        return True

    # --- combining ---

    cdef list combined(self, function, key, list values):
        """What the job's combine makes of the values of a key, as the table keeps it."""
        cdef int64_t cost
        cdef list result = []
        shown_key = key
        if self.codec == TUPLE:
            shown_key = decode_key("tuple", key)
        if self.packed:
            values = [unpack((<Packed>v).data) if type(v) is Packed else v for v in values]
        for item in pairs_of(function(shown_key, values)):
            check_pair(item)
            if item[0] != shown_key:
                raise ValueError(
                    f"combine of key {shown(shown_key)} yielded a pair of another key, "
                    f"{shown(item[0])}: it can only change values"
                )
            result.append(self.kept(key, item[1], &cost))
        return result

    cdef int64_t values_cost(self, list values) except -1:
        """What the values of a key cost, beyond the place of the first; shared ones nothing."""
        cdef Py_ssize_t i, count = PyList_GET_SIZE(values)
        cdef int64_t cost = 0
        cdef PyObject *value
        for i in range(count):
            value = PyList_GET_ITEM(values, i)
            if Py_REFCNT(value) > 1:
                continue
            if Py_TYPE(value) == <PyTypeObject *>Packed:
                cost += PACKED_COST + PyBytes_GET_SIZE((<Packed>value).data)
            else:
                cost += groups_cost(<object>value)
        if count > 1:
            cost += SECOND_COST + SLOT_COST * (count - 2)
        return cost

    def combine(self, function):
        """Replace the values of every key by what function(key, values) yields, key by key.

        A key with one value is left as it is: combine may be called any number of times.
        """
        cdef Py_ssize_t position = 0
        cdef PyObject *found_key
        cdef PyObject *found_values
        cdef list values, emptied = []
        cdef int64_t used = 0
        self.last = None
        self.pairs = 0
        while PyDict_Next(self.groups, &position, &found_key, &found_values):
            key, values = <object>found_key, <list>found_values
            if PyList_GET_SIZE(values) > 1:
                values = self.combined(function, key, values)
                self.last = None
                PyDict_SetItem(self.groups, key, values)  # of a key that is there: no resizing
                if PyList_GET_SIZE(values) == 0:
                    emptied.append(key)
                    continue
            self.pairs += PyList_GET_SIZE(values)
            used += self.key_cost(key) + self.values_cost(values)
        for key in emptied:
            del self.groups[key]
        self.used = used

    # --- writing ---

    cdef int fill(self, groups_item *items, uint8_t *integers, partition) except -1:
        """Describe every key: its encoding, its partition, its values."""
        cdef Py_ssize_t position = 0
        cdef PyObject *key
        cdef PyObject *values
        cdef groups_item *item = items
        cdef size_t size
        while PyDict_Next(self.groups, &position, &key, &values):
            if self.codec == TEXT:
                item.key = key_text(<object>key, &size)
            elif self.codec == INTEGER:
                size = 8
                item.key = integers
                integers = groups_store(
                    integers, <uint64_t>key_integer(<object>key) ^ (<uint64_t>1 << 63), 8)
            else:
                item.key = <const uint8_t *>PyBytes_AS_STRING(<object>key)
                size = PyBytes_GET_SIZE(<object>key)
            item.size = <uint32_t>size
            item.prefix = groups_prefix(item.key, size)
            item.values = values
            if partition is None:
                item.partition = fnv_partition(
                    fnv_continue(FNV_BASIS, item.key, size), self.partitions)
            else:
                item.partition = self.chosen(partition, item)
            item += 1
        return 0

    cdef uint32_t chosen(self, partition, groups_item *item) except? 0xffffffff:
        key = PyBytes_FromStringAndSize(<const char *>item.key, item.size)
        number = partition(key, self.partitions)
        if not isinstance(number, int) or not 0 <= number < self.partitions:
            raise ValueError(
                f"partition({shown(key)}, {self.partitions}) returned {shown(number)}; "
                f"it must be an int from 0 to {self.partitions - 1}"
            )
        return number

    cdef int write_item(
        self, groups_builder *to, groups_item *item, blocks_failure *failure
    ) except -1:
        """Append the records of one key."""
        cdef list values = <list>item.values
        cdef Py_ssize_t i, count = PyList_GET_SIZE(values)
        cdef size_t at
        if groups_open_record(to, item.key, item.size, count, failure) < 0:
            failed(failure)
        for i in range(count):
            value = <object>PyList_GET_ITEM(values, i)
            at = to.values.used
            if type(value) is Packed:
                append(
                    &to.values, PyBytes_AS_STRING((<Packed>value).data),
                    PyBytes_GET_SIZE((<Packed>value).data))
            else:
                groups_put(&to.values, value, 0)
            if groups_count_value(to, at, count - i, failure) < 0:
                failed(failure)
        if groups_close_record(to, failure) < 0:
            failed(failure)
        return 0

    cdef list write_items(
        self, groups_builder *to, groups_item *items, int64_t offset, blocks_failure *failure
    ):
        cdef groups_item *item = items
        cdef groups_item *end = items + len(self.groups)
        cdef uint32_t partition
        cdef int64_t begin
        cdef list segments = []
        for partition in range(self.partitions):
            begin = blocks_size(&to.output)
            to.header.partition = partition
            to.total = 0
            while item < end and item.partition == partition:
                self.write_item(to, item, failure)
                item += 1
            if groups_end_block(to, failure) < 0:
                failed(failure)
            size = <int64_t>blocks_size(&to.output) - begin
            segments.append((offset + begin, size, to.total))
        if blocks_flush(&to.output, failure) < 0:
            failed(failure)
        return segments

    def write_section(self, int fd, int64_t offset, job, task, attempt, partition=None):
        """Write all groups sorted by (partition, encoded key); clear. Format: storage/runs.py."""
        cdef size_t count = len(self.groups)
        cdef blocks_failure failure
        cdef groups_builder builder
        cdef groups_item *items = <groups_item *>PyMem_Malloc((count + 1) * sizeof(groups_item))
        cdef size_t room = 8 * count + 8 if self.codec == INTEGER else 8
        cdef uint8_t *integers = <uint8_t *>PyMem_Malloc(room)
        memset(&builder, 0, sizeof(builder))
        try:
            if items == NULL or integers == NULL:
                raise MemoryError("no memory to sort a table")
            self.fill(items, integers, partition)
            with nogil:
                groups_sort(items, count)
            if groups_open_builder(
                    &builder, fd, offset, described(job, task, attempt, 0), &failure) < 0:
                failed(&failure)
            segments = self.write_items(&builder, items, offset, &failure)
        finally:
            groups_close_builder(&builder)
            PyMem_Free(items)
            PyMem_Free(integers)
        self.clear()
        return segments

    cdef int clear(self) except -1:
        self.groups = {}
        self.used = self.pairs = 0
        self.packed = False
        self.last = None
        return 0
