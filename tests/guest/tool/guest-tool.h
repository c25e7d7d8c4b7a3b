/* What the parts of guest-tool share. */
#ifndef GUEST_TOOL_H
#define GUEST_TOOL_H

#include <stddef.h>
#include <stdint.h>

#define TIMEOUT_SECONDS 20 /* for anything; only a failure takes so long */

/* Says why on standard error, and ends the program with status 1. */
__attribute__((format(printf, 1, 2), noreturn)) void die(const char *format, ...);

uint32_t crc32_of(uint32_t crc, const volatile uint8_t *data, size_t length);

/* xorshift32, the upper byte of each state: the harness makes the same sequence. */
uint8_t next_random(uint32_t *state);

/* A terminal in raw mode; `flow` is "rtscts" or "none". */
int open_tty(const char *path, const char *flow);

/* Send or receive so many bytes of the sequence that starts with `state`, and print their CRC-32. */
int serial_send(int fd, uint64_t bytes, uint32_t state);
int serial_receive(int fd, uint64_t bytes, uint32_t state);

#endif
