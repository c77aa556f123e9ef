// MS-D in fused kernels, for 2D and 3D, forward and backward.
//
// A plane (a channel or a map of one image of the batch) is one run of numbers: its rows lie one
// behind the other with a margin between them, so that a tap of a dilated kernel is the same step
// everywhere and no loop asks for the edge. Margins hold the mirror image, or zeros.
//
// Forward: when a block of maps is finished, all later maps take their part from it at once; those
// of one dilation share each number that is loaded ("scatter by dilation"). Inside the block each
// map takes the rest from its predecessors. Backward: the same, transposed.

#include <cstdint>
#include <cstring>
#include <map>
#include <array>
#include <algorithm>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kBytes = 32, kRegisters = 16;
#else
constexpr int kBytes = 16, kRegisters = 32;
#endif

// A number that is used several times is loaded once: most loads cross a cache line.
#if defined(__AVX512F__)
#define KEEP(vector) __asm__("" : "+v"(vector))
#else
#define KEEP(vector)
#endif

using std::int64_t;
using std::vector;

namespace {

constexpr int kMost = 6;                              // planes written together
constexpr int kWide = kRegisters == 32 ? 4 : 2;       // vectors of each of them
constexpr int kDeltas = kRegisters == 32 ? 3 : 1;     // deltas that meet a plane together
constexpr int64_t kTile = 64;                         // vectors between two visits of the sums

int thread_number() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

// How a plane lies in memory; margins along z, y and x.
struct Grid {
    int64_t batch, depth, height, width, margin_z, margin_y, margin_x, row, slice, plane, start;
    int64_t channels, maps, layer, reflect, taps, block, threads;

    int64_t at(int64_t plane_number, int64_t n, int64_t z, int64_t y) const {
        return start + (plane_number * batch + n) * plane + (z + margin_z) * slice +
               (y + margin_y) * row + margin_x;
    }
    int64_t known(int64_t m) const { return channels + m / layer * layer; }
};

using Reach = std::array<int64_t, 3>;

template <class T> struct Vector {
    static constexpr int lanes = kBytes / sizeof(T);
    typedef T type __attribute__((vector_size(kBytes)));
    typedef T loose __attribute__((vector_size(kBytes), aligned(sizeof(T)), may_alias));
    static type load(const T* p) { return *reinterpret_cast<const loose*>(p); }
    static void store(T* p, type v) { *reinterpret_cast<loose*>(p) = v; }
};

// What some planes of one kind take from others: steps to the numbers, and their weights.
template <class T> struct Group {
    vector<int64_t> onto;    // planes written
    Reach reach;
    vector<int64_t> steps;   // from a plane 0 position to the number read
    vector<T> weights;       // (steps, onto)
    vector<int> side_z, side_y;  // the tap of each step, -1, 0, 1
    const T* first = nullptr;    // biases to begin with, instead of what is there

    // Only the taps that reach the image from beyond its edge.
    Group beyond(int z, int y) const {
        Group g;
        g.onto = onto, g.reach = reach;
        for (size_t i = 0; i < steps.size(); ++i) {
            if ((z && side_z[i] != z) || (y && side_y[i] != y)) continue;
            g.steps.push_back(steps[i]);
            g.weights.insert(g.weights.end(), &weights[i * onto.size()],
                             &weights[i * onto.size()] + onto.size());
        }
        return g;
    }
};

template <class T, int K, int V>
inline void add_terms(T* const* onto, const T* from, const Group<T>& g) {
    using Vec = Vector<T>;
    typename Vec::type sums[K][V];
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
            sums[k][v] = g.first ? g.first[k] - (typename Vec::type){}
                                 : Vec::load(onto[k] + v * Vec::lanes);
    const int64_t count = g.steps.size();
    const int64_t* steps = g.steps.data();
    const T* weights = g.weights.data();
    for (int64_t t = 0; t < count; ++t, weights += K) {
        const T* p = from + steps[t];
        typename Vec::type values[V];
        for (int v = 0; v < V; ++v) values[v] = Vec::load(p + v * Vec::lanes);
    #pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sums[k][v] += values[v] * weights[k];
    }
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) Vec::store(onto[k] + v * Vec::lanes, sums[k][v]);
}

// A vector of which only the lanes [low, high) may be written.
template <class T, int K>
void add_terms_within(T* const* onto, const T* from, const Group<T>& g, int low, int high) {
    T copies[K][Vector<T>::lanes];
    T* ends[K];
    for (int k = 0; k < K; ++k) {
        ends[k] = copies[k];
        std::memset(copies[k], 0, sizeof copies[k]);
        std::memcpy(copies[k] + low, onto[k] + low, (high - low) * sizeof(T));
    }
    add_terms<T, K, 1>(ends, from, g);
    for (int k = 0; k < K; ++k)
        std::memcpy(onto[k] + low, copies[k] + low, (high - low) * sizeof(T));
}

// Positions [begin, end) of planes; `anchor` is one that is aligned.
template <class T, int K>
void run_of(const Grid& grid, T* onto, const T* from, const Group<T>& g, int64_t n, int64_t begin,
            int64_t end) {
    constexpr int lanes = Vector<T>::lanes, V = K == 1 ? 2 * kWide : kWide;
    const int64_t anchor = grid.start + grid.margin_x;
    int64_t planes[K];
    for (int k = 0; k < K; ++k) planes[k] = (g.onto[k] * grid.batch + n) * grid.plane;
    from += n * grid.plane;
    T* ends[K];
    auto place = [&](int64_t p) {
        for (int k = 0; k < K; ++k) ends[k] = onto + planes[k] + p;
    };
    const int64_t shift = ((begin - anchor) % lanes + lanes) % lanes;
    int64_t p = begin - shift;
    if (shift) {
        place(p);
        add_terms_within<T, K>(ends, from + p, g, shift, std::min<int64_t>(lanes, end - p));
        p += lanes;
    }
    for (; p + V * lanes <= end; p += V * lanes) place(p), add_terms<T, K, V>(ends, from + p, g);
    for (; p + lanes <= end; p += lanes) place(p), add_terms<T, K, 1>(ends, from + p, g);
    if (p < end) place(p), add_terms_within<T, K>(ends, from + p, g, 0, end - p);
}

template <class T>
void run(const Grid& grid, T* onto, const T* from, const Group<T>& g, int64_t n, int64_t begin,
         int64_t end) {
    if (g.steps.empty() && !g.first) return;
    switch (g.onto.size()) {
        case 1: return run_of<T, 1>(grid, onto, from, g, n, begin, end);
        case 2: return run_of<T, 2>(grid, onto, from, g, n, begin, end);
        case 3: return run_of<T, 3>(grid, onto, from, g, n, begin, end);
        case 4: return run_of<T, 4>(grid, onto, from, g, n, begin, end);
        case 5: return run_of<T, 5>(grid, onto, from, g, n, begin, end);
        default: return run_of<T, 6>(grid, onto, from, g, n, begin, end);
    }
}

// How each of K deltas meets the nine taps of one plane, summed over `count` vectors.
template <class T, int K>
void meet(const T* const* deltas, const T* plane, int64_t step_y, int64_t step_x, int64_t count,
          typename Vector<T>::type* sums) {
    using Vec = Vector<T>;
    typename Vec::type own[K][9];
#pragma GCC unroll 3
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) own[k][t] = sums[k * 9 + t];
    for (int64_t i = 0; i < count * Vec::lanes; i += Vec::lanes) {
        typename Vec::type delta[K];
        for (int k = 0; k < K; ++k) delta[k] = Vec::load(deltas[k] + i);
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) {
            auto value = Vec::load(plane + i + (t / 3 - 1) * step_y + (t % 3 - 1) * step_x);
            KEEP(value);
            for (int k = 0; k < K; ++k) own[k][t] += delta[k] * value;
        }
    }
#pragma GCC unroll 3
    for (int k = 0; k < K; ++k)
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) sums[k * 9 + t] = own[k][t];
}

template <class T>
void meet_some(int k, const T* const* deltas, const T* plane, int64_t step_y, int64_t step_x,
               int64_t count, typename Vector<T>::type* sums) {
    if (k == 1) return meet<T, 1>(deltas, plane, step_y, step_x, count, sums);
    if (k == 2) return meet<T, 2>(deltas, plane, step_y, step_x, count, sums);
    return meet<T, 3>(deltas, plane, step_y, step_x, count, sums);
}

// A band of rows of one slice: what a thread takes at a time.
struct Band {
    int64_t n, z, first, last;
};

template <class T> struct Network {
    using Vec = Vector<T>;
    Grid grid;
    T* planes;
    T* slopes;
    const T* weights;
    const int64_t* dilations;  // (maps, 3), z, y, x
    vector<int64_t> places;    // where each map's kernels begin
    vector<Band> bands;        // of the slices inside the image
    vector<Band> halos;        // slices before and behind it

    Network(const int64_t* facts, T* planes, T* slopes, const T* weights, const int64_t* dilations)
        : planes(planes), slopes(slopes), weights(weights), dilations(dilations) {
        std::memcpy(&grid, facts, sizeof grid);
        int64_t place = 0;
        for (int64_t m = 0; m < grid.maps; ++m) {
            places.push_back(place);
            place += grid.known(m) * grid.taps;
        }
        const int64_t rows = std::max<int64_t>(1, std::min<int64_t>(
            8192 / grid.row, (grid.height + grid.threads - 1) / grid.threads));
        for (int64_t n = 0; n < grid.batch; ++n)
            for (int64_t z = -grid.margin_z; z < grid.depth + grid.margin_z; ++z) {
                if (z < 0 || z >= grid.depth) {
                    if (grid.reflect) halos.push_back({n, z, 0, grid.height});
                    continue;
                }
                for (int64_t y = 0; y < grid.height; y += rows)
                    bands.push_back({n, z, y, std::min(y + rows, grid.height)});
            }
    }

    Reach reach(int64_t m) const {
        return {dilations[3 * m], dilations[3 * m + 1], dilations[3 * m + 2]};
    }
    int64_t step(const Reach& r, int64_t tap, int* z, int* y) const {
        *z = grid.taps == 27 ? int(tap / 9) - 1 : 0;
        *y = int(tap / 3 % 3) - 1;
        return *z * r[0] * grid.slice + *y * r[1] * grid.row + (tap % 3 - 1) * r[2];
    }
    // The end of a block of layers that begins with map m.
    int64_t block_end(int64_t m) const {
        const int64_t layers = std::max<int64_t>(1, grid.block / grid.layer);
        return std::min(grid.maps, m + layers * grid.layer);
    }
    std::map<Reach, vector<int64_t>> by_reach(int64_t first, int64_t last) const {
        std::map<Reach, vector<int64_t>> found;
        for (int64_t m = first; m < last; ++m) found[reach(m)].push_back(m);
        return found;
    }

    // What `maps` of one dilation take from planes [first, last).
    Group<T> taken(const vector<int64_t>& maps, int64_t first, int64_t last) const {
        Group<T> g;
        g.reach = reach(maps[0]);
        for (int64_t m : maps) g.onto.push_back(grid.channels + m);
        for (int64_t s = first; s < last; ++s)
            for (int64_t t = 0; t < grid.taps; ++t) {
                int z, y;
                g.steps.push_back(s * grid.batch * grid.plane + step(g.reach, t, &z, &y));
                for (int64_t m : maps) g.weights.push_back(weights[places[m] + s * grid.taps + t]);
            }
        return g;
    }
    // What planes `onto` get back from the deltas of `maps`, of one dilation.
    Group<T> returned(const vector<int64_t>& onto, const vector<int64_t>& maps) const {
        Group<T> g;
        g.reach = reach(maps[0]);
        g.onto = onto;
        for (int64_t m : maps)
            for (int64_t t = 0; t < grid.taps; ++t) {
                int z, y;
                const int64_t s = step(g.reach, t, &z, &y);
                g.steps.push_back((grid.channels + m) * grid.batch * grid.plane - s);
                g.side_z.push_back(z), g.side_y.push_back(y);
                for (int64_t p : onto) g.weights.push_back(weights[places[m] + p * grid.taps + t]);
            }
        return g;
    }
    static vector<vector<int64_t>> split(const vector<int64_t>& all, size_t most) {
        const size_t parts = (all.size() + most - 1) / most;
        vector<vector<int64_t>> found;
        for (size_t i = 0; i < parts; ++i)
            found.emplace_back(all.begin() + all.size() * i / parts,
                               all.begin() + all.size() * (i + 1) / parts);
        return found;
    }

    // The numbers of a row are complete: clamp them, and fill the margins that mirror them.
    void finish_row(int64_t plane, int64_t n, int64_t z, int64_t y, bool clamp) {
        T* row = planes + grid.at(plane, n, z, y);
        const int64_t w = grid.width, mx = grid.margin_x;
        if (clamp)
            for (int64_t x = 0; x < w; ++x) row[x] = row[x] < 0 ? T(0) : row[x];
        std::memset(row + w, 0, (grid.row - w - mx) * sizeof(T));
        std::memset(row - mx, 0, mx * sizeof(T));
        if (!grid.reflect) return;
        for (int64_t x = 1; x <= mx; ++x) row[-x] = row[x], row[w - 1 + x] = row[w - 1 - x];
        each_mirror(z, y, [&](int64_t mz, int64_t my) {
            std::memcpy(planes + grid.at(plane, n, mz, my) - mx, row - mx,
                        (w + 2 * mx) * sizeof(T));
        });
    }
    // Calls `visit` with every row beyond the edges that mirrors this one.
    template <class Visit> void each_mirror(int64_t z, int64_t y, Visit visit) const {
        int64_t zs[3], ys[3];
        const int nz = mirrors(z, grid.depth, grid.margin_z, zs);
        const int ny = mirrors(y, grid.height, grid.margin_y, ys);
        for (int i = 0; i < nz; ++i)
            for (int j = 0; j < ny; ++j)
                if (i || j) visit(zs[i], ys[j]);
    }
    static int mirrors(int64_t p, int64_t size, int64_t margin, int64_t* found) {
        int count = 0;
        found[count++] = p;
        if (p >= 1 && p <= margin) found[count++] = -p;
        if (p <= size - 2 && size - 1 - p <= margin) found[count++] = 2 * (size - 1) - p;
        return count;
    }

    void forward(const T* biases) {
#pragma omp parallel for num_threads(grid.threads) schedule(static)
        for (size_t b = 0; b < bands.size(); ++b)
            for (int64_t c = 0; c < grid.channels; ++c)
                for (int64_t y = bands[b].first; y < bands[b].last; ++y)
                    finish_row(c, bands[b].n, bands[b].z, y, false);
        for (int64_t first = 0, last; first < grid.maps; first = last) {
            last = block_end(first);
            const int64_t begin = first ? grid.channels + first : 0;  // planes of the block
            for (int64_t m = first; m < last; ++m) {
                Group<T> g = taken({m}, begin, grid.known(m));
                if (!first) g.first = biases + m;
                finish(m, g);
            }
            vector<Group<T>> groups;
            vector<vector<T>> begins;
            for (auto& found : by_reach(last, grid.maps))
                for (auto& maps : split(found.second, kMost)) {
                    groups.push_back(taken(maps, begin, grid.channels + last));
                    begins.emplace_back();
                    for (int64_t m : maps) begins.back().push_back(biases[m]);
                }
            if (!first)
                for (size_t i = 0; i < groups.size(); ++i) groups[i].first = begins[i].data();
#pragma omp parallel for num_threads(grid.threads) schedule(static)
            for (size_t b = 0; b < bands.size(); ++b)
                for (const auto& g : groups) {
                    const Band& band = bands[b];
                    const int64_t from = grid.at(0, 0, band.z, band.first);
                    run(grid, planes, planes, g, band.n, from,
                        from + (band.last - 1 - band.first) * grid.row + grid.width);
                }
        }
    }
    void finish(int64_t m, const Group<T>& g) {
#pragma omp parallel for num_threads(grid.threads) schedule(static)
        for (size_t b = 0; b < bands.size(); ++b) {
            const Band& band = bands[b];
            const int64_t from = grid.at(0, 0, band.z, band.first);
            run(grid, planes, planes, g, band.n, from,
                from + (band.last - 1 - band.first) * grid.row + grid.width);
            for (int64_t y = band.first; y < band.last; ++y)
                finish_row(grid.channels + m, band.n, band.z, y, true);
        }
    }

    // A group with what is left of it beyond the edges.
    struct Sides {
        Group<T> all[3][3];  // z, y: before, inside, behind
        explicit Sides(const Group<T>& g) {
            for (int z = -1; z < 2; ++z)
                for (int y = -1; y < 2; ++y)
                    all[z + 1][y + 1] = z || y ? g.beyond(z, y) : g;
        }
    };

    void give_back(const Sides& sides, const Band& band) {
        const Reach& r = sides.all[1][1].reach;
        const int side = band.z < 0 ? 0 : band.z >= grid.depth ? 2 : 1;
        const int64_t off = side == 0 ? -band.z : side == 2 ? band.z - grid.depth + 1 : 0;
        if (off > r[0]) return;
        const auto& here = sides.all[side];
        const int64_t more = grid.reflect ? r[2] : 0, w = grid.width, h = grid.height;
        auto rows = [&](const Group<T>& g, int64_t first, int64_t last, bool starts, bool ends) {
            run(grid, slopes, slopes, g, band.n,
                grid.at(0, 0, band.z, first) - (starts ? more : 0),
                ends ? grid.at(0, 0, band.z, last - 1) + w + more
                     : grid.at(0, 0, band.z, last));
        };
        const bool top = band.first == 0, bottom = band.last == h;
        if (top && grid.reflect) rows(here[0], -r[1], 0, true, true);
        if (bottom && grid.reflect) rows(here[2], h, h + r[1], true, true);
        rows(here[1], band.first, band.last, top, bottom);
    }

    // How the deltas of `maps` (at most kDeltas, of one dilation) meet planes [first, last).
    void correlate(const vector<int64_t>& maps, int64_t first, int64_t last, const Band& band,
                   typename Vec::type* sums) const {
        const Reach r = reach(maps[0]);
        const int64_t at = grid.at(0, 0, band.z, band.first);
        // Whole rows: the deltas' margins are zero, and rows are whole vectors.
        const int64_t count = (band.last - band.first) * grid.row / Vec::lanes, k = maps.size();
        const int64_t slices = grid.taps / 9;
        for (int64_t i = 0; i < count; i += kTile) {
            const T* deltas[kDeltas];
            for (int64_t j = 0; j < k; ++j)
                deltas[j] = slopes + at + i * Vec::lanes +
                            ((grid.channels + maps[j]) * grid.batch + band.n) * grid.plane;
            auto* own = sums;
            for (int64_t s = first; s < last; ++s)
                for (int64_t z = 0; z < slices; ++z, own += k * 9)
                    meet_some<T>(k, deltas,
                                 planes + at + i * Vec::lanes +
                                     (s * grid.batch + band.n) * grid.plane +
                                     (z - slices / 2) * r[0] * grid.slice,
                                 r[1] * grid.row, r[2], std::min(kTile, count - i), own);
        }
    }
    int64_t sums_of(const vector<int64_t>& maps, int64_t planes_met) const {
        return maps.size() * planes_met * grid.taps;
    }
    // Adds what the threads summed up to the kernels' gradients.
    void collect(const vector<int64_t>& maps, int64_t first, int64_t last, T* found,
                 const typename Vec::type* sums) const {
        const int64_t slices = grid.taps / 9, k = maps.size();
        for (int64_t s = first; s < last; ++s)
            for (int64_t z = 0; z < slices; ++z)
                for (int64_t j = 0; j < k; ++j)
                    for (int64_t t = 0; t < 9; ++t, ++sums) {
                        T total = 0;
                        for (int l = 0; l < Vec::lanes; ++l) total += (*sums)[l];
                        found[places[maps[j]] + s * grid.taps + z * 9 + t] += total;
                    }
    }

    // The slopes of a row are complete: fold the margins back, and make them deltas.
    T fold_row(int64_t plane, int64_t n, int64_t z, int64_t y, bool clamped) {
        T* row = slopes + grid.at(plane, n, z, y);
        const int64_t w = grid.width, mx = grid.margin_x;
        if (grid.reflect) {
            each_mirror(z, y, [&](int64_t mz, int64_t my) {
                T* other = slopes + grid.at(plane, n, mz, my);
                for (int64_t x = -mx; x < w + mx; ++x) row[x] += other[x];
                std::memset(other - mx, 0, (w + 2 * mx) * sizeof(T));
            });
            for (int64_t x = 1; x <= mx; ++x)
                row[x] += row[-x], row[w - 1 - x] += row[w - 1 + x];
        }
        std::memset(row + w, 0, (grid.row - w - mx) * sizeof(T));
        std::memset(row - mx, 0, mx * sizeof(T));
        if (!clamped) return 0;
        const T* value = planes + grid.at(plane, n, z, y);
        T total = 0;
        for (int64_t x = 0; x < w; ++x) row[x] = value[x] > 0 ? row[x] : T(0);
        for (int64_t x = 0; x < w; ++x) total += row[x];
        return total;
    }
    double fold(int64_t plane, bool clamped) {
        vector<double> totals(grid.threads * 8);
#pragma omp parallel for num_threads(grid.threads) schedule(static)
        for (size_t b = 0; b < bands.size(); ++b)
            for (int64_t y = bands[b].first; y < bands[b].last; ++y)
                totals[thread_number() * 8] +=
                    fold_row(plane, bands[b].n, bands[b].z, y, clamped);
        double total = 0;
        for (double part : totals) total += part;
        return total;
    }

    // Gives back from all `giving` groups, and lets the deltas of all `meeting` meet planes.
    void step_back(const vector<Group<T>>& giving, const vector<vector<int64_t>>& meeting,
                   int64_t first, int64_t last, T* found) {
        vector<Sides> sides(giving.begin(), giving.end());
        int64_t size = 0;
        for (const auto& maps : meeting) size += sums_of(maps, last - first);
        vector<typename Vec::type> sums(size * grid.threads);
        const int64_t inside = bands.size(), all = inside + halos.size();
#pragma omp parallel for num_threads(grid.threads) schedule(static)
        for (int64_t b = 0; b < inside; ++b) {
            for (const auto& g : sides) give_back(g, bands[b]);
            auto* own = sums.data() + thread_number() * size;
            for (const auto& maps : meeting) {
                correlate(maps, first, last, bands[b], own);
                own += sums_of(maps, last - first);
            }
        }
#pragma omp parallel for num_threads(grid.threads) schedule(static)
        for (int64_t b = inside; b < all; ++b)
            for (const auto& g : sides) give_back(g, halos[b - inside]);
        const auto* own = sums.data();
        for (int64_t thread = 0; thread < grid.threads; ++thread)
            for (const auto& maps : meeting) {
                collect(maps, first, last, found, own);
                own += sums_of(maps, last - first);
            }
    }

    // `found` and `biases` get the gradients; the slopes of the channels stay in `slopes`.
    void backward(T* found, T* biases) {
        vector<int64_t> starts;
        for (int64_t m = 0; m < grid.maps; m = block_end(m)) starts.push_back(m);
        for (size_t i = starts.size(); i-- > 0;) {
            const int64_t first = starts[i], last = block_end(first);
            const int64_t begin = first ? grid.channels + first : 0, end = grid.channels + last;
            vector<int64_t> own;
            for (int64_t p = begin; p < end; ++p) own.push_back(p);
            vector<Group<T>> giving;
            vector<vector<int64_t>> meeting;
            for (auto& later : by_reach(last, grid.maps)) {
                for (auto& onto : split(own, kMost)) giving.push_back(returned(onto, later.second));
                for (auto& maps : split(later.second, kDeltas)) meeting.push_back(maps);
            }
            if (last < grid.maps) step_back(giving, meeting, begin, end, found);
            for (int64_t m = last; m-- > first;) {
                biases[m] = fold(grid.channels + m, true);
                vector<int64_t> before;
                for (int64_t p = begin; p < grid.known(m); ++p) before.push_back(p);
                if (before.empty()) continue;
                giving.clear();
                for (auto& onto : split(before, kMost)) giving.push_back(returned(onto, {m}));
                step_back(giving, {{m}}, begin, grid.known(m), found);
            }
        }
        for (int64_t c = 0; c < grid.channels; ++c) fold(c, false);
    }
};

}  // namespace

#define MSD_FUNCTIONS(T, name)                                                                  \
    extern "C" void msd_forward_##name(const int64_t* facts, T* planes, const T* weights,       \
                                       const int64_t* dilations, const T* biases) {             \
        Network<T>(facts, planes, nullptr, weights, dilations).forward(biases);                 \
    }                                                                                           \
    extern "C" void msd_backward_##name(const int64_t* facts, T* planes, const T* weights,      \
                                        const int64_t* dilations, T* slopes, T* found,          \
                                        T* biases) {                                            \
        Network<T>(facts, planes, slopes, weights, dilations).backward(found, biases);          \
    }

MSD_FUNCTIONS(float, f32)
MSD_FUNCTIONS(double, f64)
