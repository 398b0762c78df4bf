// Streams, graphs and events that clean up after themselves.
#pragma once

#include <cuda_runtime_api.h>

#include <utility>

#include "check.hpp"

namespace mbunet::cuda {

// A stream of its own, on the device that is current.
class OwnStream {
  public:
    OwnStream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"); }
    OwnStream(const OwnStream&) = delete;
    OwnStream& operator=(const OwnStream&) = delete;
    ~OwnStream() { cudaStreamDestroy(stream_); }

    cudaStream_t get() const { return stream_; }
    void wait(const char* doing) const { check(cudaStreamSynchronize(stream_), doing); }
    // Waits without a complaint: for when there is one already.
    void drain() const { cudaStreamSynchronize(stream_); }

  private:
    cudaStream_t stream_ = nullptr;
};

// What a stream was told once, to be launched many times.
class Graph {
  public:
    // Records what `enqueue` puts into the stream.
    template <class Enqueue>
    Graph(const OwnStream& stream, Enqueue enqueue) {
        // of this thread alone: another session may allocate meanwhile
        check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "recording a graph");
        cudaGraph_t graph = nullptr;
        try {
            enqueue();
        } catch (...) {
            cudaStreamEndCapture(stream.get(), &graph);
            if (graph) cudaGraphDestroy(graph);
            cudaGetLastError();  // an interrupted recording is no error of the next launch
            throw;
        }
        check(cudaStreamEndCapture(stream.get(), &graph), "recording a graph");
        const cudaError_t code = cudaGraphInstantiateWithFlags(&executable_, graph, 0);
        cudaGraphDestroy(graph);
        check(code, "preparing a graph");
    }
    Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
    Graph& operator=(Graph&&) = delete;
    ~Graph() {
        if (executable_) cudaGraphExecDestroy(executable_);  // nothing is an error to it, which the next launch reports
    }

    void upload(const OwnStream& stream) const {
        check(cudaGraphUpload(executable_, stream.get()), "uploading a graph");
    }
    void launch(const OwnStream& stream) const {
        check(cudaGraphLaunch(executable_, stream.get()), "launching a graph");
    }

  private:
    cudaGraphExec_t executable_ = nullptr;
};

// A moment in a stream.
class Event {
  public:
    Event() { check(cudaEventCreate(&event_), "making an event"); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { cudaEventDestroy(event_); }

    void record(const OwnStream& stream) { check(cudaEventRecord(event_, stream.get()), "recording an event"); }
    // Seconds from `earlier` to this one; both must have passed.
    double since(const Event& earlier) const {
        float milliseconds = 0;
        check(cudaEventElapsedTime(&milliseconds, earlier.event_, event_), "reading an event");
        return 1e-3 * static_cast<double>(milliseconds);
    }

  private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace mbunet::cuda
