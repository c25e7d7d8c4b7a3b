/* compose.h: messages of the protocol with fields of the input's choice, by the table of commands. */
#ifndef FUZZ_COMPOSE_H
#define FUZZ_COMPOSE_H

#include "input.h"
#include "protocol/message.h"

/* What is written at most. */
#define COMPOSE_MAX 131072u

/* Writes one message: as a request that side `from` may send, or as a reply to `answer` if that is not NULL (its id and
 * command are taken). Lengths that the input does not choose are right. Returns its size in bytes; *framed is false if
 * the size its header says is another, or if it is no request. */
size_t compose(struct input *in, uint8_t *to, uint16_t id, const struct ob_message *answer, bool *framed);

#endif
