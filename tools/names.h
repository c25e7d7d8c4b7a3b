/* tools/names.h: names of vendors, devices and classes, from the list that libpci keeps (pci.ids).
 *
 * libpci's headers define names of <linux/pci_regs.h> their own way, so only names.c sees them. */
#ifndef OB_NAMES_H
#define OB_NAMES_H

#include <stdbool.h>
#include <stdint.h>

enum names_mode { NAMES_TEXT, NAMES_NUMBERS, NAMES_BOTH }; /* lspci's default, -n, -nn */

struct names;

/* NULL: out of memory. Without the list, numbers take the place of names. */
struct names *names_open(enum names_mode mode);
void names_close(struct names *names);

/* Each fills `text` and returns it. */
const char *names_class(struct names *names, uint16_t class_id, char *text, int size);
const char *names_device(struct names *names, uint16_t vendor, uint16_t device, char *text, int size);
const char *names_subsystem(struct names *names, uint16_t vendor, uint16_t device, uint16_t subsystem_vendor,
                            uint16_t subsystem, char *text, int size);
/* The programming interface, in any mode, or NULL if it has no name. */
const char *names_interface(struct names *names, uint16_t class_id, uint8_t interface, char *text, int size);

#endif
