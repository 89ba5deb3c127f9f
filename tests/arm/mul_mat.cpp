// Products of weights and activations as llama.cpp computes them on one thread: mul_mat WIDTH < CASES
// A case is a line `type rows columns` with the number of a ggml type. Its weight has so many rows of WIDTH
// weights, the activations so many columns. For each case a line says whether the weight was repacked.
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <vector>

using context_ptr = std::unique_ptr<ggml_context, void (*)(ggml_context *)>;
using buffer_ptr = std::unique_ptr<ggml_backend_buffer, void (*)(ggml_backend_buffer_t)>;

// The emulator's log shows calls of these two.
extern "C" __attribute__((noinline)) void count_start() { asm volatile(""); }
extern "C" __attribute__((noinline)) void count_stop() { asm volatile(""); }

static context_ptr new_context() {
    return {ggml_init({16 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true}), ggml_free};
}

static buffer_ptr allocate(ggml_context * context, ggml_backend_buffer_type_t type) {
    return {ggml_backend_alloc_ctx_tensors_from_buft(context, type), ggml_backend_buffer_free};
}

// Buffer types of the CPU, its preferred ones first, as llama.cpp tries them for a weight.
static std::vector<ggml_backend_buffer_type_t> buffer_types(ggml_backend_dev_t cpu) {
    std::vector<ggml_backend_buffer_type_t> types;
    auto get_extra = (ggml_backend_dev_get_extra_bufts_t) ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts");
    for (auto * extra = get_extra(cpu); extra && *extra; extra++) {
        types.push_back(*extra);
    }
    types.push_back(ggml_backend_dev_buffer_type(cpu));
    return types;
}

// Any bits will do: no kernel branches on the value of a weight.
static void fill_weight(ggml_tensor * weight) {
    std::mt19937 random;
    std::vector<uint32_t> bits(ggml_nbytes(weight) / sizeof(uint32_t));
    for (auto & each : bits) {
        each = random();
    }
    ggml_backend_tensor_set(weight, bits.data(), 0, ggml_nbytes(weight));
}

static void fill_input(ggml_tensor * input) {
    auto * values = (float *) input->data;
    for (int64_t i = 0; i < ggml_nelements(input); i++) {
        values[i] = (float) (i % 61 - 30);
    }
}

// Computes the product twice, the second time between the marks. Returns whether the weight was repacked.
static bool run(ggml_backend_t backend, ggml_type type, int64_t width, int64_t rows, int64_t columns) {
    auto * cpu = ggml_backend_get_device(backend);
    const auto weights = new_context(), values = new_context();
    auto * weight = ggml_new_tensor_2d(weights.get(), type, width, rows);
    auto * input = ggml_new_tensor_2d(values.get(), GGML_TYPE_F32, width, columns);
    auto * product = ggml_mul_mat(values.get(), weight, input);
    const auto value_buffer = allocate(values.get(), ggml_backend_dev_buffer_type(cpu));
    buffer_ptr weight_buffer(nullptr, ggml_backend_buffer_free);
    for (auto * buffer_type : buffer_types(cpu)) {
        weight->buffer = nullptr;
        weight->data = weight->extra = nullptr;
        weight_buffer = allocate(weights.get(), buffer_type);
        if (ggml_backend_dev_supports_op(cpu, product)) {
            break;
        }
    }
    fill_weight(weight);
    fill_input(input);

    auto * graph = ggml_new_graph(values.get());
    ggml_build_forward_expand(graph, product);
    ggml_backend_graph_compute(backend, graph);
    count_start();
    ggml_backend_graph_compute(backend, graph);
    count_stop();
    return ggml_backend_buffer_get_type(weight_buffer.get()) != ggml_backend_dev_buffer_type(cpu);
}

int main(int argc, char ** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: mul_mat WIDTH < CASES\n");
        return 2;
    }
    const std::unique_ptr<ggml_backend, void (*)(ggml_backend_t)> backend(
        ggml_backend_cpu_init(), ggml_backend_free);
    ggml_backend_cpu_set_n_threads(backend.get(), 1);
    int type;
    int64_t rows, columns;
    while (std::cin >> type >> rows >> columns) {
        std::printf("%d\n", run(backend.get(), (ggml_type) type, std::atoll(argv[1]), rows, columns));
    }
    return 0;
}
