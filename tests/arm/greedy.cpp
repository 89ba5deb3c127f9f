// Greedy decoding of a prompt: greedy MODEL COUNT THREADS < PROMPT
// Prompt and output are token ids. llama.cpp's log goes to standard error.
#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <memory>
#include <vector>

int main(int argc, char ** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: greedy MODEL COUNT THREADS < PROMPT\n");
        return 2;
    }
    std::vector<llama_token> tokens{std::istream_iterator<llama_token>(std::cin), {}};
    const int count = std::atoi(argv[2]);

    auto model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    const std::unique_ptr<llama_model, void (*)(llama_model *)> model(
        llama_model_load_from_file(argv[1], model_params), llama_model_free);
    if (!model) {
        return 1;
    }
    auto params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = tokens.size() + count;
    params.n_threads = params.n_threads_batch = std::atoi(argv[3]);
    const std::unique_ptr<llama_context, void (*)(llama_context *)> context(
        llama_init_from_model(model.get(), params), llama_free);
    if (!context) {
        return 1;
    }
    const auto * vocabulary = llama_model_get_vocab(model.get());
    const std::unique_ptr<llama_sampler, void (*)(llama_sampler *)> greedy(
        llama_sampler_init_greedy(), llama_sampler_free);
    for (int made = 0; made < count; made++) {
        if (llama_decode(context.get(), llama_batch_get_one(tokens.data(), tokens.size()))) {
            return 1;
        }
        tokens = {llama_sampler_sample(greedy.get(), context.get(), -1)};
        if (llama_vocab_is_eog(vocabulary, tokens[0])) {
            break;
        }
        std::printf("%d ", tokens[0]);
        std::fflush(stdout);
    }
    std::printf("\n");
    return 0;
}
