// A device of Paddle's plug-in interface that is no part of the host: what a GPU is to the code above it, without one.
//
// - Its memory cannot be read or written by the host. Every byte is mapped twice: at the address that Paddle is told,
//   with no access (code that takes such a pointer for its own ends the process), and at one that only copies use.
// - Its streams are threads of their own. What is copied "without waiting" is copied later, PLUGIN_DEVICE_DELAY_MS
//   later on any stream but the first, so who does not wait for an event reads what was there before.
// - It brings the four kernels that Paddle asks of every plug-in. For all others Paddle copies the operands to the
//   CPU, computes there and copies the results back.
//
// Interface: paddle/phi/backends/device_ext.h of the Paddle wheel, 2.6 and 3.3.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "paddle/phi/backends/device_ext.h"
#include "paddle/phi/capi/all.h"

namespace {

constexpr size_t kMemory = size_t(8) << 30, kGrain = 4096;      // address space; pages are taken when written

class Memory {
 public:
  static Memory& get() {
    static auto* memory = new Memory;                            // outlives every thread
    return *memory;
  }

  void* allocate(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    size = rounded(size);
    for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
      if (hole->second < size) continue;
      auto [offset, room] = *hole;
      holes_.erase(hole);
      if (room > size) holes_[offset + size] = room - size;
      return closed_ + offset;
    }
    return nullptr;
  }

  void release(void* pointer, size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto hole = holes_.emplace(static_cast<char*>(pointer) - closed_, rounded(size)).first;
    auto next = std::next(hole);
    if (next != holes_.end() && hole->first + hole->second == next->first) {
      hole->second += next->second;
      holes_.erase(next);
    }
    if (hole == holes_.begin()) return;
    auto before = std::prev(hole);
    if (before->first + before->second == hole->first) {
      before->second += hole->second;
      holes_.erase(hole);
    }
  }

  // Where the device itself finds what Paddle calls `pointer`; host pointers are what they are.
  void* inside(const void* pointer) const {
    auto* bytes = static_cast<char*>(const_cast<void*>(pointer));
    return bytes >= closed_ && bytes < closed_ + kMemory ? open_ + (bytes - closed_) : bytes;
  }

 private:
  Memory() {
    int file = memfd_create("plugin_device", 0);
    if (file < 0 || ftruncate(file, kMemory)) abort();
    closed_ = static_cast<char*>(mmap(nullptr, kMemory, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0));
    open_ = static_cast<char*>(mmap(nullptr, kMemory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0));
    if (closed_ == MAP_FAILED || open_ == MAP_FAILED) abort();
    holes_[0] = kMemory;
  }
  static size_t rounded(size_t size) { return (size + kGrain - 1) / kGrain * kGrain; }

  char *closed_, *open_;
  std::map<size_t, size_t> holes_;                               // offset to length
  std::mutex mutex_;
};

struct Mark {                                                    // something that happens once
  void set() {
    { std::lock_guard<std::mutex> lock(mutex); done = true; }
    changed.notify_all();
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return done; });
  }
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
};

class Stream {
 public:
  Stream() { std::thread([this] { run(); }).detach(); }

  void add(std::function<void()> job) {
    { std::lock_guard<std::mutex> lock(mutex_); jobs_.push_back(std::move(job)); }
    changed_.notify_all();
  }

  void drain() {
    auto end = std::make_shared<Mark>();
    add([end] { end->set(); });
    end->wait();
  }

 private:
  void run() {
    for (;;) {
      std::function<void()> job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return !jobs_.empty(); });
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job();
    }
  }

  std::deque<std::function<void()>> jobs_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

struct Event { std::shared_ptr<Mark> mark; };                    // none: not recorded yet, nothing to wait for

std::vector<Stream*>& streams() {
  static auto* all = new std::vector<Stream*>;
  return *all;
}

Stream& stream_of(C_Stream stream) { return stream ? *reinterpret_cast<Stream*>(stream) : *streams().at(0); }

int delay() {
  const char* said = getenv("PLUGIN_DEVICE_DELAY_MS");
  return said ? atoi(said) : 0;
}

C_Status nothing() { return C_SUCCESS; }
C_Status nothing_on(const C_Device) { return C_SUCCESS; }
C_Status current(const C_Device device) { device->id = 0; return C_SUCCESS; }
C_Status count(size_t* number) { *number = 1; return C_SUCCESS; }
C_Status list(size_t* numbers) { numbers[0] = 0; return C_SUCCESS; }
C_Status chunk(const C_Device, size_t* size) { *size = kGrain; return C_SUCCESS; }

C_Status room(const C_Device, size_t* total, size_t* free) {
  *total = *free = kMemory;
  return C_SUCCESS;
}

C_Status create_stream(const C_Device, C_Stream* stream) {
  streams().push_back(new Stream);                               // never ended: Paddle still uses them at exit
  *stream = reinterpret_cast<C_Stream>(streams().back());
  return C_SUCCESS;
}

C_Status keep_stream(const C_Device, C_Stream) { return C_SUCCESS; }

C_Status create_event(const C_Device, C_Event* event) {
  *event = reinterpret_cast<C_Event>(new Event);
  return C_SUCCESS;
}

C_Status destroy_event(const C_Device, C_Event event) {
  delete reinterpret_cast<Event*>(event);
  return C_SUCCESS;
}

C_Status record_event(const C_Device, C_Stream stream, C_Event event) {
  auto mark = reinterpret_cast<Event*>(event)->mark = std::make_shared<Mark>();
  stream_of(stream).add([mark] { mark->set(); });
  return C_SUCCESS;
}

C_Status wait_on_stream(const C_Device, C_Stream stream, C_Event event) {
  if (auto mark = reinterpret_cast<Event*>(event)->mark) stream_of(stream).add([mark] { mark->wait(); });
  return C_SUCCESS;
}

C_Status wait_for_event(const C_Device, C_Event event) {
  if (auto mark = reinterpret_cast<Event*>(event)->mark) mark->wait();
  return C_SUCCESS;
}

C_Status wait_for_stream(const C_Device, C_Stream stream) {
  stream_of(stream).drain();
  return C_SUCCESS;
}

C_Status wait_for_device(const C_Device) {
  for (auto* stream : streams()) stream->drain();
  return C_SUCCESS;
}

// Stands where a kernel would: in the order of the first stream, which is the one that Paddle computes on.
C_Status copy(const C_Device, void* to, const void* from, size_t size) {
  if (!streams().empty()) streams()[0]->drain();
  memcpy(Memory::get().inside(to), Memory::get().inside(from), size);
  return C_SUCCESS;
}

void later(C_Stream stream, std::function<void()> job) {
  int wait = &stream_of(stream) == streams()[0] ? 0 : delay();
  stream_of(stream).add([=] {
    std::this_thread::sleep_for(std::chrono::milliseconds(wait));
    job();
  });
}

// As CUDA does it with memory that is not page-locked: it is read at once, whoever owns it may free it.
C_Status bring_later(const C_Device, C_Stream stream, void* to, const void* from, size_t size) {
  auto staged = std::make_shared<std::vector<char>>(size);
  memcpy(staged->data(), from, size);
  later(stream, [=] { memcpy(Memory::get().inside(to), staged->data(), size); });
  return C_SUCCESS;
}

C_Status move_later(const C_Device, C_Stream stream, void* to, const void* from, size_t size) {
  later(stream, [=] { memcpy(Memory::get().inside(to), Memory::get().inside(from), size); });
  return C_SUCCESS;
}

C_Status take_back(const C_Device, C_Stream stream, void* to, const void* from, size_t size) {
  stream_of(stream).drain();
  memcpy(to, Memory::get().inside(from), size);
  return C_SUCCESS;
}

C_Status fill(const C_Device, void* to, unsigned char value, size_t size) {
  memset(Memory::get().inside(to), value, size);
  return C_SUCCESS;
}

C_Status allocate(const C_Device, void** pointer, size_t size) {
  *pointer = Memory::get().allocate(size);
  return *pointer ? C_SUCCESS : C_FAILED;
}

C_Status release(const C_Device, void* pointer, size_t size) {
  Memory::get().release(pointer, size);
  return C_SUCCESS;
}

C_Status allocate_on_host(const C_Device, void** pointer, size_t size) {
  *pointer = malloc(size);
  return *pointer ? C_SUCCESS : C_FAILED;
}

C_Status release_on_host(const C_Device, void* pointer, size_t) {
  free(pointer);
  return C_SUCCESS;
}

// -- kernels: element for element, in the order of the first stream ---------------------------------------------

template <typename T>
T* inside(const T* pointer) {
  return static_cast<T*>(Memory::get().inside(pointer));
}

int64_t place_of(int64_t element, const std::vector<int64_t>& dims, const std::vector<int64_t>& strides) {
  int64_t place = 0;
  for (size_t axis = dims.size(); axis-- > 0; element /= dims[axis]) place += element % dims[axis] * strides[axis];
  return place;
}

template <typename T>
void copy_elements(const T* from, const std::vector<int64_t>& from_dims, const std::vector<int64_t>& from_strides,
                   T* to, const std::vector<int64_t>& to_dims, const std::vector<int64_t>& to_strides) {
  streams().at(0)->drain();
  int64_t elements = 1;
  for (auto size : from_dims) elements *= size;
  for (int64_t i = 0; i < elements; ++i) {
    inside(to)[place_of(i, to_dims, to_strides)] = inside(from)[place_of(i, from_dims, from_strides)];
  }
}

template <typename T>
void Full(const phi::Context& context, const phi::IntArray& shape, const phi::Scalar& value, phi::DataType,
          phi::DenseTensor* out) {
  out->Resize(shape.GetData());
  T* numbers = inside(context.template Alloc<T>(out));
  streams().at(0)->drain();
  std::fill(numbers, numbers + out->numel(), value.to<T>());
}

template <typename T>
void Fill(const phi::Context& context, const phi::DenseTensor& x, const phi::Scalar& value, phi::DenseTensor* out) {
  T* numbers = inside(context.template Alloc<T>(out));
  streams().at(0)->drain();
  std::fill(numbers, numbers + x.numel(), value.to<T>());
}

std::vector<int64_t> lying_together(const std::vector<int64_t>& dims) {
  std::vector<int64_t> strides(dims.size(), 1);
  for (size_t axis = dims.size(); axis-- > 1;) strides[axis - 1] = strides[axis] * dims[axis];
  return strides;
}

template <typename T>
void Contiguous(const phi::Context& context, const phi::DenseTensor& x, phi::DenseTensor* out) {
  auto strides = lying_together(x.dims());
  out->set_strides(strides);
  out->set_offset(0);
  T* to = context.template Alloc<T>(out);
  copy_elements(x.data<T>(), x.dims(), x.strides(), to, x.dims(), strides);
}

template <typename T>
void StridedCopy(const phi::Context&, const phi::DenseTensor& x, const std::vector<int64_t>& dims,
                 const std::vector<int64_t>& strides, int64_t offset, phi::DenseTensor* out) {
  out->Resize(dims);
  out->set_strides(strides);
  out->set_offset(offset);
  copy_elements(x.data<T>(), x.dims(), x.strides(), out->data<T>(), dims, strides);
}

}  // namespace

PD_BUILD_PHI_KERNEL(full, plugin_device, ALL_LAYOUT, Full, float, double, uint8_t, int32_t, int64_t, bool) {}
PD_BUILD_PHI_KERNEL(fill, plugin_device, ALL_LAYOUT, Fill, float, double, uint8_t, int32_t, int64_t, bool) {}
PD_BUILD_PHI_KERNEL(contiguous, plugin_device, ALL_LAYOUT, Contiguous, float, double, uint8_t, int32_t, int64_t, bool) {}
PD_BUILD_PHI_KERNEL(strided_copy, plugin_device, ALL_LAYOUT, StridedCopy, float, double, uint8_t, int32_t, int64_t, bool) {}

extern "C" __attribute__((visibility("default"))) void InitPlugin(CustomRuntimeParams* params) {
  PADDLE_CUSTOM_RUNTIME_CHECK_VERSION(params);
  static char type[] = "plugin_device", version[] = "1";
  params->device_type = type;
  params->sub_device_type = version;
  auto* i = params->interface;
  size_t size = i->size;
  memset(i, 0, size);
  i->size = size;
  i->initialize = i->finalize = nothing;
  i->init_device = i->set_device = i->deinit_device = nothing_on;
  i->get_device = current;
  i->get_device_count = count;
  i->get_device_list = list;
  i->device_memory_stats = room;
  i->device_min_chunk_size = chunk;
  i->create_stream = create_stream;
  i->destroy_stream = keep_stream;
  i->create_event = create_event;
  i->destroy_event = destroy_event;
  i->record_event = record_event;
  i->stream_wait_event = wait_on_stream;
  i->synchronize_event = wait_for_event;
  i->synchronize_stream = wait_for_stream;
  i->synchronize_device = wait_for_device;
  i->memory_copy_h2d = i->memory_copy_d2h = i->memory_copy_d2d = copy;
  i->async_memory_copy_h2d = bring_later;
  i->async_memory_copy_d2h = take_back;
  i->async_memory_copy_d2d = move_later;
  i->device_memory_set = fill;
  i->device_memory_allocate = allocate;
  i->device_memory_deallocate = release;
  i->host_memory_allocate = allocate_on_host;
  i->host_memory_deallocate = release_on_host;
}
