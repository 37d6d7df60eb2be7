// Instruction sets, best first, and which of them this processor has.
#pragma once
#include "operations.h"

const Level* scalar_level();
#if defined(__x86_64__)
const Level* avx512_level();
const Level* avx_vnni_level();
const Level* avx2_level();
#endif

// The `index`-th level the processor can run, best first; null past the last, which is scalar.
const Level* available_level(int index);

// The level in use: the best until `use_level` names another. False if it cannot run here.
const Level& current_level();
bool use_level(const char* name);
