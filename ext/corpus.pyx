# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Write prose that nobody wrote, at memory speed, and know exactly what is in it.

The policy (which letters, which frequencies, how fast new words appear) is made by
`engine/corpora/generate.py` and arrives here as small integer tables; this file only draws from
them. Integers only: the same tables and seed give the same bytes on every platform.

A word is 32 bytes: two tallies, its length, its first letter, and up to 18 bytes of UTF-8, so a
token costs one cache line. Tokens are drawn in batches of 64 and their lines are asked for ahead
of use, because with millions of words every draw would otherwise wait for memory.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

cdef extern from "corpus.h":
    ctypedef struct Form "struct corpus_form":
        uint64_t head
        uint64_t middle
        uint16_t tail
        uint8_t capital
        uint32_t word

    void engine_prefetch(const void* address) noexcept nogil
    void* engine_huge(size_t size) noexcept nogil
    uint64_t random64(uint64_t* state) noexcept nogil
    uint32_t below(uint64_t* state, uint32_t limit) noexcept nogil
    uint64_t big_endian(const uint8_t* text) noexcept nogil
    Form* corpus_sort(const Form* forms, uint64_t count) noexcept nogil

WORD_BYTES_MAX = 18
ROOM = 2048  # the least buffer `fill` accepts: a batch of the longest tokens

cdef enum:
    WORD_MAX = 18
    SEPARATOR_MAX = 7
    BATCH = 64
    AHEAD = 384  # about the bytes of a batch
    TOKEN_MAX = 32  # a word, a separator, and room to copy in whole steps
    OCTAVES = 33
    TRIES = 10000
    LINES_AHEAD = 16

cdef struct Word:
    uint64_t plain      # times written as it stands
    uint32_t capital    # times written with a capital
    uint8_t length
    uint8_t first       # its first letter: index into `upper`
    uint8_t text[18]

cdef struct Slot:
    uint32_t first      # ranks [first, first + width) are equally likely
    uint32_t width
    uint32_t threshold  # stay when 32 random bits are below it
    uint32_t other      # else go there

cdef struct Knot:
    uint64_t position
    uint64_t words

cdef struct Piece:
    uint8_t text[7]
    uint8_t length

cdef enum Flag:
    SENTENCE = 1  # the separator ends a sentence
    NEWLINE = 2   # … ends a line
    SPACE = 4     # … may be made to


cdef class Generator:
    """See `corpus.pyi`."""

    cdef Word* words
    cdef Slot* slots
    cdef Knot* knots
    cdef Form* forms
    cdef uint32_t size, slot_count, knot_count, knot
    cdef uint64_t form_count, tokens
    cdef uint32_t shown          # words written so far; also the rank of the next new one
    cdef uint64_t state, position, file_end
    cdef uint32_t column, line
    cdef bint sentence           # the next word begins a sentence
    cdef bint capitals
    cdef Piece lower[256]
    cdef Piece upper[256]
    cdef Piece separators[256]
    cdef uint8_t flags[256]
    cdef uint8_t draw[256]
    cdef uint8_t accents[256]
    cdef uint32_t accent_count, accented
    cdef uint8_t shortest[OCTAVES]
    cdef uint8_t longest[OCTAVES]

    def __cinit__(
        self, uint64_t seed, *, letters, bytes draw, accents, uint32_t accented, lengths, slots,
        growth, separators, uint32_t line, bint capitals,
    ):
        self.state, self.line, self.capitals, self.sentence = seed, line, capitals, True
        self.accented, self.accent_count = accented, len(accents)
        self._set_letters(letters, draw, bytes(accents))
        self._set_lengths(lengths)
        self._set_separators(separators)
        self._set_slots(slots)
        self._set_growth(growth)
        self.size = self.knots[self.knot_count - 1].words
        self.words = <Word*>engine_huge(self.size * sizeof(Word))
        if self.words == NULL:
            raise MemoryError(f"{self.size} words need {self.size * sizeof(Word)} bytes")
        self._invent_words()

    def __dealloc__(self):
        free(self.words)
        free(self.slots)
        free(self.knots)
        free(self.forms)

    @property
    def written(self):
        return self.tokens

    @property
    def vocabulary(self):
        return self.shown

    cdef _set_letters(self, letters, bytes draw, bytes accents):
        assert 0 < len(letters) <= 256 and len(draw) == 256 and len(accents) <= 256
        for i, (small, large) in enumerate(letters):
            assert 0 < len(small) <= 4 and len(small) == len(large)
            set_piece(&self.lower[i], small)
            set_piece(&self.upper[i], large)
        assert max(draw) < len(letters) and (not accents or max(accents) < len(letters))
        memcpy(self.draw, PyBytes_AS_STRING(draw), 256)
        memcpy(self.accents, PyBytes_AS_STRING(accents), len(accents))

    cdef _set_lengths(self, lengths):
        assert len(lengths) == OCTAVES
        for i, (low, high) in enumerate(lengths):
            assert 0 < low <= high <= WORD_MAX
            self.shortest[i], self.longest[i] = low, high

    cdef _set_separators(self, separators):
        assert len(separators) == 256
        for i, (text, ends) in enumerate(separators):
            assert 0 < len(text) <= SEPARATOR_MAX
            set_piece(&self.separators[i], text)
            self.flags[i] = (
                (SENTENCE if ends else 0)
                | (NEWLINE if text.endswith(b"\n") else 0)
                | (SPACE if text.endswith(b" ") else 0)
            )

    cdef _set_slots(self, slots):
        self.slot_count = len(slots)
        self.slots = <Slot*>malloc(self.slot_count * sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError()
        for i, (first, width, threshold, other) in enumerate(slots):
            assert width > 0 and other < self.slot_count
            self.slots[i] = Slot(first, width, threshold, other)
        assert self.slots[0].first == 0

    cdef _set_growth(self, growth):
        self.knot_count = len(growth)
        assert self.knot_count >= 2 and growth[0][0] == 0
        assert 0 < growth[self.knot_count - 1][1] < 1 << 31
        self.knots = <Knot*>malloc(self.knot_count * sizeof(Knot))
        if self.knots == NULL:
            raise MemoryError()
        for i, (position, words) in enumerate(growth):
            if i:
                rise, run = words - growth[i - 1][1], position - growth[i - 1][0]
                assert run > 0 and rise >= 0 and run * rise < 1 << 64
            self.knots[i] = Knot(position, words)

    # --- the vocabulary ---------------------------------------------------------------------------

    cdef _invent_words(self):
        """All words, all different. An alphabet too small for them is found by trying in vain."""
        cdef uint64_t buckets = 1024
        while buckets < 2 * <uint64_t>self.size:
            buckets *= 2
        cdef uint64_t* taken = <uint64_t*>engine_huge(buckets * sizeof(uint64_t))
        if taken == NULL:
            raise MemoryError()
        cdef uint32_t rank = 0
        with nogil:
            while rank < self.size and self._invent_new(taken, buckets - 1, rank):
                rank += 1
        free(taken)
        if rank < self.size:
            raise OverflowError(f"{self.size} different words are too many for this alphabet")

    cdef bint _invent_new(self, uint64_t* taken, uint64_t mask, uint32_t rank) noexcept nogil:
        """A word that exists already is drawn again, a letter longer."""
        cdef uint32_t octave = 0, letters, _try
        while rank >> octave:
            octave += 1
        letters = self._letters_of(octave)
        for _try in range(<uint32_t>TRIES):
            self._invent(rank, letters)
            if self._claim(taken, mask, rank):
                return True
            if letters < self.longest[OCTAVES - 1]:
                letters += 1
        return False

    cdef uint32_t _letters_of(self, uint32_t octave) noexcept nogil:
        """Short words are frequent words: bounds by octave of rank, the middle most likely."""
        cdef uint32_t low = self.shortest[octave]
        cdef uint32_t spread = self.longest[octave] - low
        cdef uint32_t half = spread // 2
        return low + below(&self.state, half + 1) + below(&self.state, spread - half + 1)

    cdef void _invent(self, uint32_t rank, uint32_t letters) noexcept nogil:
        cdef Word* word = &self.words[rank]
        cdef uint32_t i, marked = 256
        cdef uint8_t letter
        cdef uint64_t bits = 0
        if self.accent_count and (random64(&self.state) >> 56) < self.accented:
            marked = below(&self.state, letters)
        word.length = 0
        memset(word.text, 0, WORD_MAX)
        for i in range(letters):
            if i % 8 == 0:
                bits = random64(&self.state)
            letter = self.draw[bits & 255]
            bits >>= 8
            if i == marked:
                letter = self.accents[below(&self.state, self.accent_count)]
            if word.length + self.lower[letter].length > WORD_MAX:
                break
            if i == 0:
                word.first = letter
            memcpy(word.text + word.length, self.lower[letter].text, self.lower[letter].length)
            word.length += self.lower[letter].length

    cdef bint _claim(self, uint64_t* taken, uint64_t mask, uint32_t rank) noexcept nogil:
        """False when an earlier word has this text. `taken`: half a hash and rank + 1, or 0."""
        cdef Word* word = &self.words[rank]
        cdef uint64_t hashed = big_endian(word.text) ^ (big_endian(word.text + 8) * 31)
        hashed ^= (<uint64_t>word.text[16] << 8 | word.text[17]) * 0x9E3779B97F4A7C15ULL
        hashed = random64(&hashed)
        cdef uint64_t at = hashed & mask
        while taken[at]:
            if (taken[at] ^ hashed) >> 32 == 0:
                if memcmp(self.words[<uint32_t>taken[at] - 1].text, word.text, WORD_MAX) == 0:
                    return False
            at = (at + 1) & mask
        taken[at] = (hashed >> 32 << 32) | (rank + 1)
        return True

    # --- the text ---------------------------------------------------------------------------------

    def begin(self, uint64_t size):
        """The next `size` bytes are one file: it ends at a word's end, and in a line break."""
        assert self.position == self.file_end, "the file before is not full"
        self.file_end += size
        self.sentence, self.column = True, 0

    def fill(self, uint8_t[::1] buffer not None):
        """Write on into `buffer`; the bytes written, 0 when the file is full."""
        assert buffer.shape[0] >= BATCH * TOKEN_MAX, "a buffer holds at least ROOM bytes"
        cdef uint64_t done = 0, room = buffer.shape[0], left
        cdef uint32_t batch
        with nogil:
            while self.position < self.file_end and room - done >= BATCH * TOKEN_MAX:
                left = self.file_end - self.position
                if left < TOKEN_MAX:
                    done += self._rule_off(&buffer[done], left)
                    break
                batch = BATCH if left >= BATCH * TOKEN_MAX else <uint32_t>(left // TOKEN_MAX)
                left = self._write_batch(&buffer[done], batch)
                done += left
                self.position += left
        return done

    cdef uint64_t _rule_off(self, uint8_t* out, uint64_t left) noexcept nogil:
        """Too little room for a token: a line of dashes fills the file up."""
        memset(out, b'-', left)
        out[left - 1] = b'\n'
        self.position += left
        return left

    cdef uint32_t _due(self) noexcept nogil:
        """Words that should have appeared after the next batch, by the table of growth."""
        cdef uint64_t position = self.position + AHEAD
        cdef Knot* low = &self.knots[self.knot]
        while self.knot + 2 < self.knot_count and low[1].position <= position:
            self.knot += 1
            low += 1
        if position >= low[1].position:
            return <uint32_t>low[1].words
        return <uint32_t>(low.words + (position - low.position)
                          * (low[1].words - low.words) // (low[1].position - low.position))

    cdef uint32_t _draw_rank(self) noexcept nogil:
        """Zipf–Mandelbrot among the words shown so far: a draw of a later word is drawn again."""
        cdef uint64_t bits
        cdef uint32_t index, other, stay, rank
        while True:
            bits = random64(&self.state)
            index = <uint32_t>(((bits >> 32) * self.slot_count) >> 32)
            other = self.slots[index].other
            stay = -<uint32_t>(<uint32_t>bits < self.slots[index].threshold)
            index = (index & stay) | (other & ~stay)  # a branch here is a coin toss
            rank = self.slots[index].first + below(&self.state, self.slots[index].width)
            if rank < self.shown:
                return rank

    cdef uint64_t _write_batch(self, uint8_t* out, uint32_t batch) noexcept nogil:
        cdef Word* chosen[BATCH]
        cdef uint32_t i, new = 0, due = self._due()
        cdef int32_t turn = 0
        cdef uint64_t bits = 0
        cdef uint8_t* start = out
        if due > self.shown:
            new = due - self.shown if due - self.shown < batch else batch
        elif self.shown == 0:
            new = 1
        for i in range(batch):  # new words are spread evenly; the first of all comes first
            turn += new
            if turn >= <int32_t>batch or self.shown == 0:
                turn -= batch
                chosen[i] = &self.words[self.shown]
                self.shown += 1
            else:
                chosen[i] = &self.words[self._draw_rank()]
            engine_prefetch(chosen[i])
        for i in range(batch):
            if i % 8 == 0:
                bits = random64(&self.state)
            out = self._write_token(out, chosen[i], bits & 255)
            bits >>= 8
        self.tokens += batch
        return out - start

    cdef inline uint8_t* _write_token(
        self, uint8_t* out, Word* word, uint8_t choice
    ) noexcept nogil:
        cdef Piece* piece = &self.separators[choice]
        cdef uint8_t flags = self.flags[choice]
        memcpy(out, word.text, WORD_MAX)
        if self.sentence and self.capitals:
            memcpy(out, self.upper[word.first].text, self.upper[word.first].length)
            word.capital += 1
        else:
            word.plain += 1
        out += word.length
        memcpy(out, piece, sizeof(Piece))  # its length goes along, and under the next word
        out += piece.length
        self.column += word.length + piece.length
        if flags & NEWLINE:
            self.column = 0
        elif self.column >= self.line and flags & SPACE:
            (out - 1)[0] = b'\n'
            self.column = 0
        self.sentence = flags & SENTENCE
        return out

    # --- what is in it ----------------------------------------------------------------------------

    def sort(self, bint folded=False):
        """Put all forms that were written in bytewise order; how many there are."""
        free(self.forms)
        self.forms = <Form*>malloc((2 * <uint64_t>self.shown + 1) * sizeof(Form))
        if self.forms == NULL:
            raise MemoryError()
        self.form_count = 0
        cdef uint32_t i
        cdef Form* ordered
        with nogil:
            for i in range(self.shown):
                if self.words[i].plain or (folded and self.words[i].capital):
                    self._add_form(i, False)
                if self.words[i].capital and not folded:
                    self._add_form(i, True)
            ordered = corpus_sort(self.forms, self.form_count)
        if ordered == NULL:
            raise MemoryError()
        free(self.forms)
        self.forms = ordered
        return self.form_count

    cdef void _add_form(self, uint32_t index, bint capital) noexcept nogil:
        cdef Word* word = &self.words[index]
        cdef uint8_t text[18]
        cdef Form* form = &self.forms[self.form_count]
        memcpy(text, word.text, WORD_MAX)
        if capital:
            memcpy(text, self.upper[word.first].text, self.upper[word.first].length)
        form.head, form.middle = big_endian(text), big_endian(text + 8)
        form.tail = <uint16_t>(text[16] << 8 | text[17])
        form.capital, form.word = capital, index
        self.form_count += 1

    def lines(self, uint64_t first, uint64_t last, bint folded=False):
        """The sorted forms [first, last) as lines `word count`; call `sort` before."""
        assert first <= last <= self.form_count, "sort() gives the number of forms"
        cdef bytes data = PyBytes_FromStringAndSize(NULL, (last - first) * 41)
        cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(data)
        cdef uint8_t* start = out
        cdef uint64_t i
        with nogil:
            for i in range(first, last):
                if i + LINES_AHEAD < last:
                    engine_prefetch(&self.words[self.forms[i + LINES_AHEAD].word])
                out = self._write_line(out, &self.forms[i], folded)
        return data[: out - start]

    cdef uint8_t* _write_line(self, uint8_t* out, Form* form, bint folded) noexcept nogil:
        cdef Word* word = &self.words[form.word]
        cdef uint64_t count = word.capital if form.capital else word.plain
        cdef uint8_t digits[20]
        cdef int n = 0
        memcpy(out, word.text, word.length)
        if form.capital:
            memcpy(out, self.upper[word.first].text, self.upper[word.first].length)
        elif folded:
            count += word.capital
        out += word.length
        out[0] = b' '
        while count or n == 0:
            digits[n] = <uint8_t>(48 + count % 10)
            count //= 10
            n += 1
        while n:
            n -= 1
            out += 1
            out[0] = digits[n]
        out[1] = b'\n'
        return out + 2


cdef set_piece(Piece* piece, bytes text):
    piece.length = len(text)
    memset(piece.text, 0, SEPARATOR_MAX)
    memcpy(piece.text, PyBytes_AS_STRING(text), piece.length)
