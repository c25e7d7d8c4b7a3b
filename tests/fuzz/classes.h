/* classes.h: devices without a purpose, that do at a client's word whatever a class may do. */
#ifndef FUZZ_CLASSES_H
#define FUZZ_CLASSES_H

#include <outboard/device.h>

/* express: PCI Express, MSI-X of the class's own place, every kind of area; legacy: INTx, MSI, I/O; mixed: INTx, MSI
 * and MSI-X, extended configuration space; bare: MSI-X with 2048 vectors and nothing else. */
extern const struct ob_device_class ob_class_express, ob_class_legacy, ob_class_mixed, ob_class_bare;

/* Answers whatever a device of these classes keeps. */
void classes_release(struct ob_dev *dev);

#endif
