/* words.h: a command as it is given in one argument. */
#ifndef CONFORM_WORDS_H
#define CONFORM_WORDS_H

#include <stdbool.h>

/* Its words, which blanks separate, with "{socket}" replaced by `path` wherever it stands; *replaced: it stood
 * somewhere. Ends with NULL, and has room for one word more. NULL: out of memory. */
char **words_split(const char *command, const char *path, bool *replaced);
void words_free(char **words);

#endif
