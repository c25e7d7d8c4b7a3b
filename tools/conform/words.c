/* words.c: takes a command apart. No quotes: what needs them is a script. */
#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\n"
#define SOCKET "{socket}"

static char *replace(const char *word, size_t size, const char *path, bool *replaced)
{
    const char *at = memmem(word, size, SOCKET, strlen(SOCKET));
    char *out;
    int n;

    if (at == NULL)
        return strndup(word, size);
    *replaced = true;
    n = asprintf(&out, "%.*s%s%.*s", (int)(at - word), word, path, (int)(word + size - at - strlen(SOCKET)),
                 at + strlen(SOCKET));
    return n < 0 ? NULL : out;
}

char **words_split(const char *command, const char *path, bool *replaced)
{
    char **words = calloc(strlen(command) / 2 + 3, sizeof(*words));
    size_t n = 0;

    *replaced = false;
    for (const char *at = command + strspn(command, BLANKS); words != NULL && *at != '\0'; at += strspn(at, BLANKS)) {
        size_t size = strcspn(at, BLANKS);

        words[n] = replace(at, size, path, replaced);
        if (words[n++] == NULL) {
            words_free(words);
            return NULL;
        }
        at += size;
    }
    return words;
}

void words_free(char **words)
{
    for (char **word = words; word != NULL && *word != NULL; word++)
        free(*word);
    free(words);
}
