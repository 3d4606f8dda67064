/*
 * A recipe: how to make the KV of a prompt out of saved states. The sidecar writes it
 * where it would have written a state, and the server is asked to restore it. All
 * numbers are little-endian. The file is, without gaps:
 *
 *   struct recipe_head
 *   struct recipe_ref  x n_refs     states in the recipe's directory
 *   struct state_types x n_layers  how the server's cache holds keys and values, whatever
 *                                   the references hold them in
 *   i32                x n_tokens   token ids of the prompt
 *   i32                x n_following those that come behind it, before the answer
 *   i32                x n_cells    position of each cell, ascending, the last n_tokens-1
 *   u16                x n_cells    depth: in how many layers the cell is computed anew
 *                                   (n_layers: in all), with RECIPE_KEEP added where
 *                                   retention must keep it, RECIPE_SAMPLE where it tells
 *                                   how far its passage is off and RECIPE_DISPLACED where
 *                                   other text stands before it than in its reference;
 *                                   padded to a multiple of 4 bytes
 *   u16                x n_cells    passage: which cells are off in the same way, numbered
 *                                   from 1; 0 for none; padded to a multiple of 4 bytes
 *   i32 x 5            x n_runs     struct semshare_run: rows of a reference that become
 *                                   cells; cells in no run have depth n_layers
 *   f32                x dims/2     radians by which a pair turns when its token moves by one
 *
 * With share_first above 0, further tokens are chosen by how much their values in the
 * second layer deviate: share_first of all cells in the third layer, falling
 * exponentially to share_last in the last one.
 *
 * With share_attended above 0, that share of the displaced cells is computed in all
 * layers after the others: those that n_drafted tokens of an answer attend to most, which
 * are drafted for that.
 *
 * With retention below 1 only that share of the cells goes into the cache: those that the
 * same tokens attend to most.
 */
#ifndef AGENT_RECIPE_H
#define AGENT_RECIPE_H

#include "error.h"
#include "semshare.h"
#include "state.h"

#include <stddef.h>
#include <stdint.h>

#define RECIPE_MAGIC 0x726b7373u /* "sskr" */

enum {
    RECIPE_VERSION = 7,
    RECIPE_NEOX = 1,    /* flag: pairs are (i, i + dims/2) */
    RECIPE_V_TRANS = 2, /* flag: the cache's values lie in columns */
    RECIPE_PACKED = 4,  /* flag: tokens carry a header in the server's states */
    RECIPE_KEEP = 1 << 15,
    RECIPE_SAMPLE = 1 << 14,
    RECIPE_DISPLACED = 1 << 13,
    RECIPE_MAX_BYTES = 64 << 20,
    RECIPE_MAX_REFS = 64,
    RECIPE_MAX_DRAFTED = 64,
};

struct recipe_head {
    uint32_t magic, version;
    uint64_t size;     /* of the file */
    uint64_t checksum; /* xxHash64, seed 0, of what follows in the file */
    uint32_t n_tokens, n_cells, n_runs, n_refs, n_layers;
    uint32_t flags;
    uint32_t head_dim, dims; /* elements of a key's head, and how many of them turn */
    float share_first, share_last;
    float min_deviation; /* of a token worth computing, relative to the mean of all values */
    /* What ggml_rope_ext takes, for computing as the server does, to the last bit. */
    float freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow;
    uint32_t orig_ctx;
    float retention; /* above 0, up to 1 */
    float share_attended;
    uint32_t n_following, n_drafted; /* 0 where nobody asks what an answer attends to */
    uint64_t whole; /* xxHash64, seed 0, of all of the prompt's tokens */
    uint32_t n_whole; /* how many they are; 0 where nobody says */
    uint16_t state_version, streams; /* of the server's states; references may be of others */
};

struct recipe_ref {
    uint64_t size; /* of the state file */
    char name[248]; /* base name, ended by a zero */
};

/* A recipe in memory; pointers lead into bytes. */
struct recipe {
    uint8_t * bytes;
    struct recipe_head head;
    const struct recipe_ref * refs;
    const struct state_types * types;
    const int32_t * tokens;
    const int32_t * pos;
    const uint16_t * depth;
    const uint16_t * passage;
    const struct semshare_run * runs;
    const float * freqs;
};

/* Whether the file begins as a recipe does. */
bool recipe_is(const char * path);

/* Reads and checks a recipe. Free it with recipe_free, also after a failure. */
bool recipe_read(struct recipe * r, const char * path, struct error * err);

/* The same of bytes in memory, which stay the caller's. */
bool recipe_parse(struct recipe * r, const uint8_t * bytes, size_t size, struct error * err);

void recipe_free(struct recipe * r);

/* Whether an answer is drafted. */
static inline bool recipe_drafts(const struct recipe * r) { return r->head.n_following > 0; }

/* Cells of tokens that are computed behind the recipe's, and not kept. */
static inline uint32_t recipe_beyond(const struct recipe * r) { return r->head.n_following + r->head.n_drafted; }

/* All cells, those of tokens that are only drafted included. */
static inline uint32_t recipe_all_cells(const struct recipe * r) { return r->head.n_cells + recipe_beyond(r); }

/* In how many layers the cell is computed anew. */
static inline uint32_t recipe_depth(const struct recipe * r, uint32_t cell) { return r->depth[cell] & ~(uint32_t) (RECIPE_KEEP | RECIPE_SAMPLE | RECIPE_DISPLACED); }

/* Whether anything is computed: cells, or an answer. */
bool recipe_computes(const struct recipe * r);

static inline bool recipe_is_sample(const struct recipe * r, uint32_t cell) { return (r->depth[cell] & RECIPE_SAMPLE) != 0; }

/* Whether only some of the cells go into the cache. */
static inline bool recipe_thins(const struct recipe * r) { return r->head.retention < 1; }

/* Whether further cells are computed because an answer attends to them. */
static inline bool recipe_looks(const struct recipe * r) { return r->head.share_attended > 0; }

static inline bool recipe_is_displaced(const struct recipe * r, uint32_t cell) { return (r->depth[cell] & RECIPE_DISPLACED) != 0; }

/* xxHash64 with seed 0. */
uint64_t xxhash64(const uint8_t * p, size_t n);

#endif
