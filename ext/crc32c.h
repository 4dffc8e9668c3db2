/* CRC32C (Castagnoli polynomial, RFC 3720 section 12.1), for the kernels that read or write runs.
 *
 *     uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t size);
 *
 * The usual inversions at start and end happen inside, so sums are continued by passing the last
 * one: crc32c(crc32c(0, a), b) is that of a followed by b. That of "123456789" is 0xE3069283.
 *
 * By instruction where the machine has one (SSE4.2, ARMv8 CRC), else by tables, eight bytes a step.
 * Which of the two is settled once, when the module that includes this file is loaded.
 */
#ifndef ENGINE_CRC32C_H
#define ENGINE_CRC32C_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#define CRC32C_POLYNOMIAL 0x82F63B78u /* bits reversed */

/* --- by instruction ------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define CRC32C_HAS_INSTRUCTION 1

static int crc32c_machine_has_it(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") != 0;
}

__attribute__((target("sse4.2"))) static uint32_t
crc32c_by_instruction(uint32_t crc, const uint8_t *bytes, size_t size) {
    uint64_t wide = crc;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    if (size >= 4) {
        uint32_t word;
        memcpy(&word, bytes, 4);
        crc = __builtin_ia32_crc32si(crc, word);
        bytes += 4, size -= 4;
    }
    for (; size; bytes++, size--) crc = __builtin_ia32_crc32qi(crc, *bytes);
    return crc;
}

__attribute__((target("sse4.2"))) static void
crc32c_three_by_instruction(uint32_t crc[3], const uint8_t *const bytes[3], size_t size) {
    uint64_t first = crc[0], second = crc[1], third = crc[2];
    for (size_t at = 0; at + 8 <= size; at += 8) {
        uint64_t word;
        memcpy(&word, bytes[0] + at, 8);
        first = __builtin_ia32_crc32di(first, word);
        memcpy(&word, bytes[1] + at, 8);
        second = __builtin_ia32_crc32di(second, word);
        memcpy(&word, bytes[2] + at, 8);
        third = __builtin_ia32_crc32di(third, word);
    }
    crc[0] = (uint32_t)first, crc[1] = (uint32_t)second, crc[2] = (uint32_t)third;
}

#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))
#define CRC32C_HAS_INSTRUCTION 1

static int crc32c_machine_has_it(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & (1u << 7)) != 0; /* HWCAP_CRC32 */
#else
    return 1; /* every arm64 Mac */
#endif
}

/* In assembly because the intrinsics exist only where the whole file is compiled for ARMv8 CRC. */
static uint32_t crc32c_by_instruction(uint32_t crc, const uint8_t *bytes, size_t size) {
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    }
    for (; size; bytes++, size--) {
        __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"((uint32_t)*bytes));
    }
    return crc;
}

static void crc32c_three_by_instruction(uint32_t crc[3], const uint8_t *const bytes[3],
                                        size_t size) {
    for (size_t at = 0; at + 8 <= size; at += 8) {
        for (int lane = 0; lane < 3; lane++) {
            uint64_t word;
            memcpy(&word, bytes[lane] + at, 8);
            __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc[lane]) : "r"(word));
        }
    }
}

#else
#define CRC32C_HAS_INSTRUCTION 0
#endif

/* --- by tables -------------------------------------------------------------------------------- */

/* crc32c_tables[k][b] is what byte b does to the sum when k more bytes follow it. */
static uint32_t crc32c_tables[8][256];
static int crc32c_instruction;

__attribute__((constructor)) static void crc32c_prepare(void) {
#if CRC32C_HAS_INSTRUCTION
    crc32c_instruction = crc32c_machine_has_it();
#endif
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ CRC32C_POLYNOMIAL : crc >> 1;
        crc32c_tables[0][byte] = crc;
    }
    for (int follow = 1; follow < 8; follow++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = crc32c_tables[follow - 1][byte];
            crc32c_tables[follow][byte] = crc >> 8 ^ crc32c_tables[0][crc & 255];
        }
    }
}

static uint32_t crc32c_by_tables(uint32_t crc, const uint8_t *bytes, size_t size) {
    for (; size >= 8; bytes += 8, size -= 8) {
        crc ^= (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
               (uint32_t)bytes[3] << 24;
        crc = crc32c_tables[7][crc & 255] ^ crc32c_tables[6][crc >> 8 & 255] ^
              crc32c_tables[5][crc >> 16 & 255] ^ crc32c_tables[4][crc >> 24] ^
              crc32c_tables[3][bytes[4]] ^ crc32c_tables[2][bytes[5]] ^
              crc32c_tables[1][bytes[6]] ^ crc32c_tables[0][bytes[7]];
    }
    for (; size; bytes++, size--) crc = crc >> 8 ^ crc32c_tables[0][(crc ^ *bytes) & 255];
    return crc;
}

static inline uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t size) {
    crc = ~crc;
#if CRC32C_HAS_INSTRUCTION
    if (crc32c_instruction) return ~crc32c_by_instruction(crc, bytes, size);
#endif
    return ~crc32c_by_tables(crc, bytes, size);
}

/* The sums of three texts at once: the instruction takes three cycles, but one can begin in each.
 */
static inline void crc32c_three(uint32_t crc[3], const uint8_t *const bytes[3],
                                const size_t size[3]) {
    size_t done = 0;
    for (int lane = 0; lane < 3; lane++) crc[lane] = ~(uint32_t)0;
#if CRC32C_HAS_INSTRUCTION
    if (crc32c_instruction) {
        done = size[0] < size[1] ? size[0] : size[1];
        done = (done < size[2] ? done : size[2]) & ~(size_t)7;
        crc32c_three_by_instruction(crc, bytes, done);
    }
#endif
    for (int lane = 0; lane < 3; lane++)
        crc[lane] = crc32c(~crc[lane], bytes[lane] + done, size[lane] - done);
}

#endif
