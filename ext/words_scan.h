/* From text to the edges of words, for one instruction set: words_body.h includes it, once a level.
 *
 * 1. 64 bytes become a mask of those that belong to letters; for ASCII that is a few instructions.
 * 2. Where the mask changes, words begin and end: these *edges* are listed without a jump per byte.
 */

/* --- stage 1: letters ----------------------------------------------------------------------- */

/* Bit i: text[i] is an ASCII letter; *high, bit i: text[i] is not ASCII. */
#if LEVEL_AVX512
static inline uint64_t LEVEL(ascii_letters)(const uint8_t *text, uint64_t *high) {
    __m512i bytes = _mm512_loadu_si512(text);
    __m512i lower = _mm512_or_si512(bytes, _mm512_set1_epi8(0x20));
    *high = _mm512_movepi8_mask(bytes);
    return _mm512_cmplt_epu8_mask(_mm512_sub_epi8(lower, _mm512_set1_epi8('a')),
                                  _mm512_set1_epi8(26));
}
#elif LEVEL_AVX2
static inline uint64_t LEVEL(ascii_letters)(const uint8_t *text, uint64_t *high) {
    uint64_t letters = 0, wide = 0;
    for (int half = 0; half < 2; half++) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(text + 32 * half));
        __m256i lower = _mm256_or_si256(bytes, _mm256_set1_epi8(0x20));
        __m256i rank = _mm256_sub_epi8(lower, _mm256_set1_epi8('a'));
        __m256i is_letter = _mm256_cmpeq_epi8(_mm256_min_epu8(rank, _mm256_set1_epi8(25)), rank);
        wide |= (uint64_t)(uint32_t)_mm256_movemask_epi8(bytes) << 32 * half;
        letters |= (uint64_t)(uint32_t)_mm256_movemask_epi8(is_letter) << 32 * half;
    }
    *high = wide;
    return letters;
}
#elif LEVEL_SSE2
static inline uint64_t LEVEL(ascii_letters)(const uint8_t *text, uint64_t *high) {
    uint64_t letters = 0, wide = 0;
    for (int part = 0; part < 4; part++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(text + 16 * part));
        __m128i lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        __m128i rank = _mm_sub_epi8(lower, _mm_set1_epi8('a'));
        __m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(rank, _mm_set1_epi8(25)), rank);
        wide |= (uint64_t)(uint32_t)_mm_movemask_epi8(bytes) << 16 * part;
        letters |= (uint64_t)(uint32_t)_mm_movemask_epi8(is_letter) << 16 * part;
    }
    *high = wide;
    return letters;
}
#elif LEVEL_NEON
/* One bit per byte: each byte keeps the bit of its place in eight, then neighbours are added. */
static inline uint64_t LEVEL(mask)(const uint8x16_t are[4]) {
    const uint8x16_t places = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t low = vpaddq_u8(vandq_u8(are[0], places), vandq_u8(are[1], places));
    uint8x16_t top = vpaddq_u8(vandq_u8(are[2], places), vandq_u8(are[3], places));
    uint8x16_t sums = vpaddq_u8(low, top);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
}

static inline uint64_t LEVEL(ascii_letters)(const uint8_t *text, uint64_t *high) {
    uint8x16_t wide[4], letters[4];
    for (int part = 0; part < 4; part++) {
        uint8x16_t bytes = vld1q_u8(text + 16 * part);
        uint8x16_t rank = vsubq_u8(vorrq_u8(bytes, vdupq_n_u8(0x20)), vdupq_n_u8('a'));
        wide[part] = vcgeq_u8(bytes, vdupq_n_u8(0x80));
        letters[part] = vcltq_u8(rank, vdupq_n_u8(26));
    }
    *high = LEVEL(mask)(wide);
    return LEVEL(mask)(letters);
}
#else
/* Eight bytes at a time in one register; the top bit of each byte is the answer for that byte, and
 * a multiplication gathers the eight answers. */
static inline uint64_t LEVEL(gather)(uint64_t tops) {
    return (tops >> 7) * 0x0102040810204080u >> 56;
}

static inline uint64_t LEVEL(ascii_letters)(const uint8_t *text, uint64_t *high) {
    const uint64_t every = 0x0101010101010101u;
    uint64_t letters = 0, wide = 0;
    for (int part = 0; part < 8; part++) {
        uint64_t bytes;
        memcpy(&bytes, text + 8 * part, 8);
        uint64_t lower = (bytes | 0x20 * every) & 0x7F * every;
        uint64_t from_a = lower + (0x80 - 'a') * every;
        uint64_t past_z = lower + (0x80 - 'z' - 1) * every;
        letters |= LEVEL(gather)(from_a & ~past_z & ~bytes & 0x80 * every) << 8 * part;
        wide |= LEVEL(gather)(bytes & 0x80 * every) << 8 * part;
    }
    *high = wide;
    return letters;
}
#endif

/* The bytes that begin a sequence of two bytes (110xxxxx), and of more (111xxxxx). Doubling a byte
 * brings the bit below the top one to the top, where masks are taken. */
static inline void LEVEL(leads)(const uint8_t *text, uint64_t *two, uint64_t *more) {
    uint64_t leads = 0, tall = 0;
#if LEVEL_AVX512
    __m512i bytes = _mm512_loadu_si512(text);
    leads = _mm512_cmpge_epu8_mask(bytes, _mm512_set1_epi8((char)0xC0));
    tall = _mm512_cmpge_epu8_mask(bytes, _mm512_set1_epi8((char)0xE0));
#elif LEVEL_AVX2
    for (int half = 0; half < 2; half++) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(text + 32 * half));
        __m256i twice = _mm256_and_si256(_mm256_add_epi8(bytes, bytes), bytes);
        __m256i thrice = _mm256_and_si256(_mm256_slli_epi16(bytes, 2), twice);
        leads |= (uint64_t)(uint32_t)_mm256_movemask_epi8(twice) << 32 * half;
        tall |= (uint64_t)(uint32_t)_mm256_movemask_epi8(thrice) << 32 * half;
    }
#elif LEVEL_SSE2
    for (int part = 0; part < 4; part++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(text + 16 * part));
        __m128i twice = _mm_and_si128(_mm_add_epi8(bytes, bytes), bytes);
        __m128i thrice = _mm_and_si128(_mm_slli_epi16(bytes, 2), twice);
        leads |= (uint64_t)(uint32_t)_mm_movemask_epi8(twice) << 16 * part;
        tall |= (uint64_t)(uint32_t)_mm_movemask_epi8(thrice) << 16 * part;
    }
#elif LEVEL_NEON
    uint8x16_t lead[4], more_than_two[4];
    for (int part = 0; part < 4; part++) {
        uint8x16_t bytes = vld1q_u8(text + 16 * part);
        lead[part] = vcgeq_u8(bytes, vdupq_n_u8(0xC0));
        more_than_two[part] = vcgeq_u8(bytes, vdupq_n_u8(0xE0));
    }
    leads = LEVEL(mask)(lead);
    tall = LEVEL(mask)(more_than_two);
#else
    for (int part = 0; part < 8; part++) {
        uint64_t bytes;
        memcpy(&bytes, text + 8 * part, 8);
        uint64_t tops = bytes & bytes << 1 & 0x8080808080808080u;
        leads |= LEVEL(gather)(tops) << 8 * part;
        tall |= LEVEL(gather)(tops & bytes << 2) << 8 * part;
    }
#endif
    *two = leads & ~tall;
    *more = tall;
}

/* Bits of the bytes of all letters beyond ASCII that begin in these 64 bytes. *spill comes with the
 * first bits, which a letter of the 64 bytes before has here, and leaves with those due in the
 * next. */
static __attribute__((noinline)) uint64_t
LEVEL(wide_letters)(const uint8_t *text, uint64_t *spill) {
    uint64_t leads, more, two = 0, three = 0, four = 0;
    LEVEL(leads)(text, &leads, &more);
    for (; leads; leads &= leads - 1) {
        int at = __builtin_ctzll(leads);
        two |= letter_of_two(text_word(text + at)) << at;
    }
    for (; more; more &= more - 1) {
        int at = __builtin_ctzll(more);
        uint32_t word = text_word(text + at);
        if ((word & 0xF0) == 0xE0)
            three |= letter_of_three(word) << at;
        else
            four |= letter_of_four(word) << at;
    }
    uint64_t second = two | three | four, third = three | four;
    uint64_t letters = *spill | second | second << 1 | third << 2 | four << 3;
    *spill = second >> 63 | third >> 62 | four >> 61;
    return letters;
}

/* --- stage 2: edges ------------------------------------------------------------------------- */

static inline int LEVEL(ones)(uint64_t mask) {
#if LEVEL_POPCOUNT
    return __builtin_popcountll(mask);
#else /* else a call into the compiler's library */
    mask -= mask >> 1 & 0x5555555555555555u;
    mask = (mask & 0x3333333333333333u) + (mask >> 2 & 0x3333333333333333u);
    return (int)(((mask + (mask >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u >> 56);
#endif
}

/* List the positions of the ones of `changes`, from `base`; the new end of the list. Writes up to
 * 64 entries, more than there are: EDGES_SLACK. */
static inline uint32_t *LEVEL(list_edges)(uint32_t *edge, uint64_t changes, uint32_t base) {
    int count = LEVEL(ones)(changes);
#if LEVEL_AVX512
    const __m512i places = _mm512_load_si512(word_places);
    __m512i packed = _mm512_maskz_compress_epi8(changes, places);
    __m512i bases = _mm512_set1_epi32((int)base);
    for (int part = 0; part < 4 && (part < 2 || rarely(count > 16 * part)); part++) {
        __m512i wide = _mm512_cvtepu8_epi32(_mm512_castsi512_si128(packed));
        _mm512_storeu_si512(edge + 16 * part, _mm512_add_epi32(bases, wide));
        packed = _mm512_shuffle_i64x2(packed, packed, 0x39); /* the next 16 bytes to the front */
    }
#else
    /* Words end after about five letters: 16 edges a block are usual, so the jumps here are on
     * whether there are more, which can be predicted. */
    uint32_t *to = edge;
    for (int i = 0; i < 16; i++, changes &= changes - 1)
        *to++ = base + (uint32_t)__builtin_ctzll(changes | (uint64_t)1 << 63);
    if (count > 16) {
        for (int i = 0; i < 8; i++, changes &= changes - 1)
            *to++ = base + (uint32_t)__builtin_ctzll(changes | (uint64_t)1 << 63);
        for (; rarely(changes != 0); changes &= changes - 1)
            *to++ = base + (uint32_t)__builtin_ctzll(changes);
    }
#endif
    return edge + count;
}
