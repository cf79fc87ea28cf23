"""Classic BPF (Documentation/networking/filter.rst), slow and obvious, with what the kernel adds to it."""

ARPHRD_ETHER, ARPHRD_LOOPBACK, ARPHRD_NONE, ARPHRD_TUNNEL = 1, 772, 0xFFFE, 768


def changed(code, k, a, x):
    return {
        0x01: (a, k),
        0x07: (a, a),
        0x04: (a + k & 0xFFFFFFFF, x),
        0x54: (a & k, x),
        0x64: (a << (k & 31) & 0xFFFFFFFF, x),
    }[code]


def run(program, frame, hardware=ARPHRD_ETHER, protocol=0, tag=None):
    """What a program returns for a frame."""
    return steps(program, frame, hardware, protocol, tag)[0]


def steps(program, frame, hardware=ARPHRD_ETHER, protocol=0, tag=None):
    """The same, and how many instructions that took."""
    kernel = {0: protocol, 28: hardware, 44: tag or 0, 48: int(tag is not None)}
    a = x = at = 0
    for count in range(1, len(program) + 1):
        code, yes, no, k = program[at]
        at += 1
        if code in (0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xB1):
            size = {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
            if code == 0x20 and k >= 0xFFFFF000:
                a = kernel[k - 0xFFFFF000]
                continue
            place = k + (x if code & 0xE0 == 0x40 else 0)
            if place + size > len(frame):
                return 0, count
            value = int.from_bytes(frame[place : place + size])
            if code == 0xB1:
                x = (value & 15) * 4
            else:
                a = value
        elif code == 0x06:
            return k, count
        elif code == 0x05:
            at += k
        elif code in (0x15, 0x45):
            at += yes if (a == k if code == 0x15 else a & k) else no
        else:
            a, x = changed(code, k, a, x)
    raise AssertionError("the program does not end")
