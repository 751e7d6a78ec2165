/*
 * What the runtime of this build can run, by name: one list for the runtime, which must know each of them, and for whoever decides
 * whether a version is worth fetching without having the runtime at hand (the agent).
 */
#ifndef SKF_MODEL_RUNS_H
#define SKF_MODEL_RUNS_H

#include "model/gguf.h"

/* Architectures, by GGUF's general.architecture. */
enum skf_arch_id { SKF_ARCH_GEMMA2, SKF_ARCH_GEMMA3, SKF_ARCH_LLAMA, SKF_ARCH_PHI3, SKF_ARCH_QWEN2, SKF_ARCH_QWEN3, SKF_ARCH_SMOLLM3, SKF_ARCH_COUNT };
const char *skf_arch_name(enum skf_arch_id id);
bool is_arch_known(const char *p, size_t n, enum skf_arch_id *id); /* n bytes; id may be NULL */
const char *skf_arch_names(void);                                 /* all of them, with ", " between */

/* What cuts text before byte-level BPE, by GGUF's tokenizer.ggml.pre; several names may mean the same. */
enum skf_pre { SKF_PRE_GPT2, SKF_PRE_SMOLLM, SKF_PRE_LLAMA3, SKF_PRE_CL100K, SKF_PRE_QWEN2 };
bool is_pre_known(const char *p, size_t n, enum skf_pre *pre); /* pre may be NULL */

/* A tokenizer in one word, as manifests name it: "llama" (SentencePiece), or "gpt2:" and its pre-tokenizer. False where the file names none, or by
 * names too long for out. */
bool is_tokenizer_named(const struct skf_gguf *g, char out[64]);
bool is_tokenizer_known(const char *name);

/* What a runtime must have learnt, counted: a box says its level, a version the lowest that runs it.
 *   1  gemma3, llama; the pre-tokenizers gpt-2 and smollm
 *   2  gemma2, phi3, qwen2, qwen3, smollm3; the other pre-tokenizers */
#define SKF_RUNTIME_LEVEL 2
/* Of an architecture (n bytes) and a tokenizer as is_tokenizer_named says it ("" where none was named); 1 for what is not known here. */
uint32_t skf_runs_level(const char *architecture, size_t n, const char *tokenizer);

/* Types that a matrix can be multiplied from. */
bool is_runs_type(uint32_t type);

#endif
