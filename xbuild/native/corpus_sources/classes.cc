// Classes: virtual bases, exceptions, run-time types, guards of statics, thread-local objects.
#include <new>
#include <typeinfo>

struct Shape {
    virtual ~Shape();
    virtual double area() const = 0;
    virtual Shape *clone() const = 0;
};
Shape::~Shape() = default;
struct Named : virtual Shape {
    const char *name;
    explicit Named(const char *n) : name(n) {}
};
struct Sized : virtual Shape {
    double size = 1.25;
};
struct Square final : Named, Sized {
    Square() : Named("square") {}
    double area() const override { return size * size; }
    Square *clone() const override { return new Square(*this); }
};
struct Failure {
    int code;
    ~Failure() noexcept(false);
};
Failure::~Failure() noexcept(false) {}
extern void outside(int);
static int counter;
struct Guard {
    int depth;
    explicit Guard(int d) : depth(d) { outside(d); }
    ~Guard() { counter -= depth; }
};
thread_local Guard per_thread(3);
static Guard global(7);

int attempt(int value) try {
    Guard first(1), second(2);
    static Guard once(value);
    if (value < 0) throw Failure{value};
    if (value > 100) throw value * 2;
    outside(value);
    return per_thread.depth + once.depth;
} catch (const Failure &failure) {
    return failure.code;
} catch (int code) {
    if (code == 202) throw;
    return code;
} catch (...) {
    return -1;
}

void promised() noexcept { outside(attempt(5)); }
const char *kind(const Shape &shape) {
    if (auto *named = dynamic_cast<const Named *>(&shape)) return named->name;
    return typeid(shape).name();
}
double Shape::*none = nullptr;
double (Shape::*member)() const = &Shape::area;
double measure(const Shape &shape) { return (shape.*member)(); }
