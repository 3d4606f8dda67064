/*
 * What texts became as tokens. For each prompt that is shared the server tokenises the same
 * text twice: when the sidecar asks for its tokens, and when the request itself arrives. The
 * second time they are known. They are given out once, within a second after a recipe for
 * this very prompt was carried out, to whoever asks for the text first: mostly the request
 * that the recipe was for. Who asks for a text without a recipe, or after it was given out,
 * waits as long as if nobody had asked for it.
 */
#ifndef AGENT_TOKENIZED_H
#define AGENT_TOKENIZED_H

#include "abi.h"

/* As llama_tokenize takes it. */
struct text {
    const struct llama_vocab * vocab;
    const char * bytes;
    int32_t len;
    bool add_special, parse_special;
};

enum {
    TOKENIZED_LEAST = 2048,     /* bytes of a text; shorter ones take no time */
    TOKENIZED_BYTES = 16 << 20, /* of texts and tokens, together */
    TOKENIZED_ENTRIES = 32,
};

/* Keeps n tokens of a text that is a prompt, not a part of one, in place of the oldest where
 * there is no room. What is older than a minute goes. */
void tokenized_keep(const struct text * t, const int32_t * tokens, int32_t n);

/* A recipe was carried out for a prompt of n tokens of that xxHash64: its text is what comes
 * next. */
void tokenized_expect(const struct llama_vocab * vocab, uint32_t n, uint64_t sum);

/* Gives out the tokens of a text that is expected, and forgets it. Returns how many they are,
 * or -1: none are known, or they do not fit. */
int32_t tokenized_take(const struct text * t, int32_t * tokens, int32_t capacity);

/* How often that spared the server the work. */
int64_t tokenized_spared(void);

#endif
