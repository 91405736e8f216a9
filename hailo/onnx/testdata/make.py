"""Makes the tiny models of the tests: python3 make.py (Debian's python3-onnx), in this folder.

All have embeddings of 8 numbers, pictures of 4x4 pixels, texts of 6 tokens, a vocabulary of 16.
  whole.onnx      image and text in one graph, everything dynamic, with attention_mask.
                  Token 14 has the vector 0, token 15 NaN. A text is the sum of its tokens' vectors.
  text_fixed.onnx text only: int32 ids, a fixed batch of 2, a fixed length
  image_fixed.onnx image only: a fixed batch of 2
  half.onnx       text only, float16 output
  external.onnx   text only, weights in external.onnx_data
  int8.onnx       image only, weights of 8 bits, dynamically quantised as the usual tools do it:
                  DynamicQuantizeLinear, MatMulInteger, Cast, Mul
  slow.onnx       text only: turns a loop as many times as the first id says, so that id
                  2000000000 does not end unless it is stopped
"""
import numpy as np, onnx
from onnx import TensorProto as T, helper as h, numpy_helper as n

DIM, SIZE, LEN, VOCAB = 8, 4, 6, 16
rng = np.random.default_rng(1)
words = rng.standard_normal((VOCAB, DIM)).astype(np.float32)
words[14], words[15] = 0, np.nan
colours = rng.standard_normal((3, DIM)).astype(np.float32)

def ids(batch='batch', length='sequence_length', t=T.INT64, name='input_ids'):
    return h.make_tensor_value_info(name, t, [batch, length])
def pixels(batch='batch'):
    return h.make_tensor_value_info('pixel_values', T.FLOAT, [batch, 3, SIZE, SIZE])
def out(name, batch='batch', t=T.FLOAT):
    return h.make_tensor_value_info(name, t, [batch, DIM])

def image_nodes():
    return ([h.make_node('GlobalAveragePool', ['pixel_values'], ['pooled']),
             h.make_node('Flatten', ['pooled'], ['flat']),
             h.make_node('MatMul', ['flat', 'colours'], ['image_embeds'])], [n.from_array(colours, 'colours')])
def text_nodes(mask):
    nodes, weights = [h.make_node('Gather', ['words', 'input_ids'], ['each'])], [n.from_array(words, 'words')]
    if mask:
        nodes += [h.make_node('Cast', ['attention_mask'], ['mask'], to=T.FLOAT),
                  h.make_node('Unsqueeze', ['mask', 'last'], ['mask3']), h.make_node('Mul', ['each', 'mask3'], ['kept'])]
        weights += [n.from_array(np.array([2]), 'last')]
    nodes += [h.make_node('ReduceSum', ['kept' if mask else 'each', 'axis'], ['text_embeds'], keepdims=0)]
    return nodes, weights + [n.from_array(np.array([1]), 'axis')]

def save(name, nodes, inputs, outputs, weights, **kw):
    m = h.make_model(h.make_graph(nodes, 'tiny', inputs, outputs, weights), opset_imports=[h.make_opsetid('', 14)], ir_version=7)
    onnx.checker.check_model(m)
    onnx.save_model(m, name + '.onnx', **kw)

i, iw = image_nodes(); t, tw = text_nodes(True)
save('whole', i + t, [ids(), pixels(), ids(name='attention_mask')],
     [out('text_embeds'), out('image_embeds')], iw + tw)
save('image_fixed', i, [pixels(2)], [out('image_embeds', 2)], iw)
scale = np.float32(np.abs(colours).max() / 127)
save('int8', i[:2] + [
    h.make_node('DynamicQuantizeLinear', ['flat'], ['flat_int8', 'flat_scale', 'flat_zero']),
    h.make_node('MatMulInteger', ['flat_int8', 'colours_int8', 'flat_zero', 'colours_zero'], ['product']),
    h.make_node('Cast', ['product'], ['product_float'], to=T.FLOAT),
    h.make_node('Mul', ['flat_scale', 'colours_scale'], ['scale']),
    h.make_node('Mul', ['product_float', 'scale'], ['image_embeds'])], [pixels()], [out('image_embeds')],
    [n.from_array(np.round(colours / scale).astype(np.int8), 'colours_int8'), n.from_array(np.int8(0), 'colours_zero'),
     n.from_array(scale, 'colours_scale')])
t, tw = text_nodes(False)
save('text_fixed', t, [ids(2, LEN, T.INT32)], [out('text_embeds', 2)], tw)
save('external', t, [ids()], [out('text_embeds')], tw, save_as_external_data=True, location='external.onnx_data', size_threshold=64)
save('half', t[:-1] + [h.make_node('ReduceSum', ['each', 'axis'], ['sum'], keepdims=0), h.make_node('Cast', ['sum'], ['text_embeds'], to=T.FLOAT16)],
     [ids()], [out('text_embeds', t=T.FLOAT16)], tw)

body = h.make_graph([h.make_node('Identity', ['go_in'], ['go_out']), h.make_node('Identity', ['x_in'], ['x_out'])], 'body',
    [h.make_tensor_value_info('turn', T.INT64, []), h.make_tensor_value_info('go_in', T.BOOL, []), h.make_tensor_value_info('x_in', T.FLOAT, None)],
    [h.make_tensor_value_info('go_out', T.BOOL, []), h.make_tensor_value_info('x_out', T.FLOAT, None)])
save('slow', [h.make_node('ReduceMax', ['input_ids'], ['turns'], keepdims=0),
              h.make_node('Shape', ['input_ids'], ['shape']), h.make_node('Gather', ['shape', 'first'], ['batch']),
              h.make_node('Concat', ['batch', 'dim'], ['size'], axis=0), h.make_node('Expand', ['one', 'size'], ['ones']),
              h.make_node('Loop', ['turns', '', 'ones'], ['text_embeds'], body=body)],
     [ids()], [out('text_embeds')],
     [n.from_array(np.array([0]), 'first'), n.from_array(np.array([DIM]), 'dim'), n.from_array(np.ones((1, 1), np.float32), 'one')])
