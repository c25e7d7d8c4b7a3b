/* version.h: what the checks of VU-VER have in common. */
#ifndef CONFORM_VERSION_H
#define CONFORM_VERSION_H

#include "check.h"

/* VERSION 0.0 with these capabilities, the members of an object without its braces, on a new connection, has to
 * succeed; its reply, whose JSON is judge_json()'s. */
struct ob_raw_message *negotiate(struct judge *j, const char *capabilities);
/* VERSION 0.0 with these bytes behind the numbers, on a new connection: 0, an errno, or -ENOTCONN. */
int negotiate_bytes(struct judge *j, const void *bytes, size_t size);
/* That was refused, or ended the connection; and there is no session. */
void want_no_session(struct judge *j, int result, const char *what);
/* A member of the reply's capabilities; NULL: absent. */
const json_t *capability(struct judge *j, const struct ob_raw_message *reply, const char *key);

#endif
