/* transcript.h: the last messages of a check, for the report of one that failed. */
#ifndef CONFORM_TRANSCRIPT_H
#define CONFORM_TRANSCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct transcript;

struct transcript *transcript_new(void);
void transcript_free(struct transcript *t);
/* NULL: out of memory. */
struct transcript *transcript_copy(const struct transcript *t);
void transcript_clear(struct transcript *t);
/* Keeps nothing of what is added until it goes on again. */
void transcript_stop(struct transcript *t, bool stopped);
/* An ob_raw_trace_fn: bytes that went out, or the message that came (its payload may be cut). */
void transcript_add(void *t, bool sent, const void *bytes, size_t size, unsigned nfds);
void transcript_print(const struct transcript *t, FILE *to, const char *indent);
/* A command's name without its prefix, or "command N". Points to a static buffer for unknown ones. */
const char *command_name(unsigned command);

#endif
