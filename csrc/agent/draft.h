/*
 * What an answer will attend to, as the answer itself tells: its first tokens are drafted,
 * greedily, over the cells as they are, and weigh them (Lookahead Q-Cache, arXiv
 * 2505.20334). The end of the prompt does not look yet at what the tenth word will.
 */
#ifndef AGENT_DRAFT_H
#define AGENT_DRAFT_H

#include "attention.h"
#include "recompute.h"

/* Computes the tokens that follow the recipe's, and drafts as many as it says. r's state
 * must have that many cells more than the recipe, the last of which hold them afterwards.
 * attention gets what the last of the following tokens and the drafted ones pay to the
 * recipe's cells. */
bool draft(struct engine * e, const struct recipe * recipe, struct rows * r, int32_t batch, struct attention * attention, struct recomputed * did, struct error * err);

#endif
