/* Takes a fuzz target's bytes apart. Whoever reads beyond the end gets zeros, so every input means something. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct input {
    const uint8_t *at, *end;
};

static inline bool input_left(const struct input *in)
{
    return in->at < in->end;
}

static inline uint8_t take8(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

/* `width` bytes, little-endian. */
static inline uint64_t take(struct input *in, unsigned width)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)take8(in) << (8 * i);
    return value;
}

/* Up to `want` bytes, as they lie there; *got is how many. */
static inline const uint8_t *take_bytes(struct input *in, size_t want, size_t *got)
{
    const uint8_t *bytes = in->at;
    size_t left = (size_t)(in->end - in->at);

    *got = want < left ? want : left;
    in->at += *got;
    return bytes;
}

/* A number that means something more often than random bytes do: small ones and round ones are one byte. */
uint64_t take_number(struct input *in, unsigned width);

/* An abort with a line that says which promise was broken. */
_Noreturn void broken(const char *promise, const char *file, int line);
#define promise(kept) ((kept) ? (void)0 : broken(#kept, __FILE__, __LINE__))

#endif
