"""Writes MNN's file format, a flatbuffer, as MNN's own converter would: ReLU inside the layers, dense layers as 1×1
convolutions, weights in a file beside the graph.

MNN's Python cannot build a convolution with its ReLU, and running its converter sends usage data to its makers. Numbers
of fields, operators and parameters: `schema/default/*.fbs` of https://github.com/alibaba/MNN.
"""

from pathlib import Path

import flatbuffers

NCHW, NC4HW4 = 0, 2
# An operator, and the kind of its parameters.
INPUT, CONVOLUTION, POOLING, RESHAPE, CONVERT = (34, 21), (12, 9), (47, 31), (73, 55), (129, 66)
AVERAGE = 1


class Graph:
    """A chain of operators."""

    def __init__(self, shape: list[int]) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.operators: list[int] = []
        self.external = 0
        dims = self.integers(shape)
        self.operator(INPUT, {0: ("UOffsetTRelative", dims), 2: ("Int8", NCHW)}, "input")

    def convert(self, source: int, target: int) -> None:
        self.operator(CONVERT, {0: ("Int8", source), 1: ("Int8", target)})

    def convolution(self, inputs: int, outputs: int, kernel: int, relu: bool) -> None:
        """With padding that keeps the size. Its weights and bias follow those of the convolution before."""
        common = {2: ("Int32", kernel), 3: ("Int32", kernel), 0: ("Int32", kernel // 2), 1: ("Int32", kernel // 2)}
        common |= {10: ("Int32", outputs), 11: ("Int32", inputs), 12: ("Bool", relu)}
        bytes_of_weights, bytes_of_bias = 4 * inputs * outputs * kernel * kernel, 4 * outputs
        place = self.integers([self.external, bytes_of_weights, bytes_of_bias], "Int64", 8)
        self.external += bytes_of_weights + bytes_of_bias
        parameters = {0: ("UOffsetTRelative", self.table(common)), 6: ("UOffsetTRelative", place)}
        self.operator(CONVOLUTION, parameters)

    def max_pool(self) -> None:
        sizes = {field: ("Int32", 2) for field in (3, 4, 5, 6)}
        self.operator(POOLING, sizes | {10: ("Bool", False)})

    def global_average_pool(self) -> None:
        self.operator(POOLING, {2: ("Bool", True), 7: ("Int8", AVERAGE)})

    def reshape(self, dims: list[int], name: str | None = None) -> None:
        self.operator(RESHAPE, {0: ("UOffsetTRelative", self.integers(dims)), 1: ("Int8", NCHW)}, name)

    def write(self, path: Path) -> None:
        """The last operator must be named `logits`."""
        names = [self.builder.CreateString(f"value{index}") for index in range(len(self.operators))]
        names[0], names[-1] = self.builder.CreateString("input"), self.builder.CreateString("logits")
        fields = {
            3: ("UOffsetTRelative", self.vector(self.operators)),
            4: ("UOffsetTRelative", self.vector(names[-1:])),
            7: ("UOffsetTRelative", self.vector(names)),
            8: ("Int32", len(names)),
        }
        self.builder.Finish(self.table(fields))
        path.write_bytes(self.builder.Output())

    def operator(self, kind: tuple[int, int], parameters: dict[int, tuple[str, int]], name: str | None = None) -> None:
        operator, parameter = kind
        index = len(self.operators)
        main = self.table(parameters)
        text = self.builder.CreateString(name or f"value{index}")
        outputs = self.integers([index])
        fields = {0: ("UOffsetTRelative", self.integers([index - 1]))} if index else {}
        fields |= {1: ("Uint8", parameter), 2: ("UOffsetTRelative", main), 3: ("UOffsetTRelative", text)}
        fields |= {4: ("UOffsetTRelative", outputs), 5: ("Int32", operator), 6: ("Int8", NCHW)}
        self.operators.append(self.table(fields))

    def table(self, fields: dict[int, tuple[str, int]]) -> int:
        """Fields by their number, each with its type."""
        self.builder.StartObject(max(fields) + 1)
        for field, (kind, value) in fields.items():
            getattr(self.builder, f"Prepend{kind}")(value)
            self.builder.Slot(field)
        return self.builder.EndObject()

    def integers(self, values: list[int], kind: str = "Int32", size: int = 4) -> int:
        self.builder.StartVector(size, len(values), size)
        for value in reversed(values):
            getattr(self.builder, f"Prepend{kind}")(value)
        return self.builder.EndVector()

    def vector(self, offsets: list[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()
