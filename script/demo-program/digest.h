#ifndef DIGEST_H
#define DIGEST_H

#include <stddef.h>
#include <stdint.h>

/* SHA-256 (FIPS 180-4) of a message of at most 55 bytes: one block. */
void sha256_short(const uint8_t *message, size_t length, uint8_t digest[32]);

#endif
