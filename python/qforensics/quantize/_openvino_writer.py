def write_openvino(*a): raise NotImplementedError
