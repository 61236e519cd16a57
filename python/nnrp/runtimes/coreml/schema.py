"""The protobuf messages that are read, Core ML's, and written, ONNX's: of each, the fields that matter here (docs/decisions/0013)."""

from __future__ import annotations

from functools import cache
from typing import Any

#: Message, and its fields as name=number:type; * is repeated, ? tells whether it is there. Kinds of models that are refused by their name are bytes.
CORE_ML = """
Model               specificationVersion=1:int32 description=2:ModelDescription isUpdatable=10:bool mlProgram=502:Program neuralNetwork=500:bytes
Model               neuralNetworkRegressor=303:bytes neuralNetworkClassifier=403:bytes pipeline=202:bytes pipelineClassifier=200:bytes
Model               pipelineRegressor=201:bytes glmRegressor=300:bytes supportVectorRegressor=301:bytes treeEnsembleRegressor=302:bytes
Model               bayesianProbitRegressor=304:bytes glmClassifier=400:bytes supportVectorClassifier=401:bytes treeEnsembleClassifier=402:bytes
Model               kNearestNeighborsClassifier=404:bytes itemSimilarityRecommender=501:bytes customModel=555:bytes linkedModel=556:bytes
Model               classConfidenceThresholding=560:bytes oneHotEncoder=600:bytes imputer=601:bytes featureVectorizer=602:bytes dictVectorizer=603:bytes
Model               scaler=604:bytes categoricalMapping=606:bytes normalizer=607:bytes arrayFeatureExtractor=609:bytes nonMaximumSuppression=610:bytes
Model               identity=900:bytes textClassifier=2000:bytes wordTagger=2001:bytes visionFeaturePrint=2002:bytes
Model               soundAnalysisPreprocessing=2003:bytes gazetteer=2004:bytes wordEmbedding=2005:bytes audioFeaturePrint=2006:bytes
Model               serializedModel=3000:bytes
ModelDescription    functions=20:FunctionDescription* defaultFunctionName=21:string input=1:Feature* output=10:Feature* predictedFeatureName=11:string
ModelDescription    predictedProbabilitiesName=12:string
FunctionDescription name=1:string input=2:Feature* output=3:Feature* predictedFeatureName=4:string predictedProbabilitiesName=5:string
Feature             name=1:string type=3:FeatureType
FeatureType         int64Type=1:bytes doubleType=2:bytes stringType=3:bytes imageType=4:ImageType multiArrayType=5:ArrayType dictionaryType=6:bytes
FeatureType         sequenceType=7:bytes stateType=8:bytes isOptional=1000:bool
ImageType           width=1:int64 height=2:int64 colorSpace=3:int32 enumeratedSizes=21:ImageSizes imageSizeRange=31:ImageRange
ImageSizes          sizes=1:ImageSize*
ImageSize           width=1:uint64 height=2:uint64
ImageRange          widthRange=1:SizeRange heightRange=2:SizeRange
SizeRange           lowerBound=1:uint64 upperBound=2:int64
ArrayType           shape=1:int64* dataType=2:int32 enumeratedShapes=21:Shapes shapeRange=31:ShapeRange intDefaultValue=41:int32?
ArrayType           floatDefaultValue=51:float? doubleDefaultValue=61:double?
Shapes              shapes=1:Shape*
Shape               shape=1:int64*
ShapeRange          sizeRanges=1:SizeRange*
Program             version=1:int64 functions=2:NamedFunction*
NamedFunction       key=1:string value=2:Function
Function            inputs=1:NamedType* opset=2:string blocks=3:NamedBlock*
NamedBlock          key=1:string value=2:Block
NamedValue          key=1:string value=2:Value
Block               inputs=1:NamedType* outputs=2:string* operations=3:Operation*
Argument            arguments=1:Binding*
NamedArgument       key=1:string value=2:Argument
Binding             name=1:string value=2:Value
Operation           type=1:string inputs=2:NamedArgument* outputs=3:NamedType* blocks=4:Block* attributes=5:NamedValue*
NamedType           name=1:string type=2:ValueType
ValueType           tensorType=1:TensorType listType=2:ListType tupleType=3:bytes dictionaryType=4:bytes stateType=5:bytes
ListType            type=1:ValueType length=2:Dimension
TensorType          dataType=1:int32 rank=2:int64 dimensions=3:Dimension*
Dimension           constant=1:Constant unknown=2:Unknown
Constant            size=1:uint64
Unknown             variadic=1:bool
Value               type=2:ValueType immediateValue=3:Immediate blobFileValue=5:BlobFile
Immediate           tensor=1:TensorValue tuple=2:bytes list=3:ListValue dictionary=4:bytes
BlobFile            fileName=1:string offset=2:uint64
TensorValue         floats=1:Floats ints=2:Ints bools=3:Bools strings=4:Strings longInts=5:LongInts doubles=6:Doubles bytes=7:Bytes
ListValue           values=1:Value*
Floats              values=1:float*
Ints                values=1:int32*
Bools               values=1:bool*
Strings             values=1:string*
LongInts            values=1:int64*
Doubles             values=1:double*
Bytes               values=1:bytes
"""
ONNX = """
ModelProto          ir_version=1:int64 producer_name=2:string graph=7:GraphProto opset_import=8:OperatorSet*
OperatorSet         domain=1:string version=2:int64
GraphProto          node=1:NodeProto* name=2:string initializer=5:TensorProto* input=11:ValueInfo* output=12:ValueInfo*
NodeProto           input=1:string* output=2:string* name=3:string op_type=4:string attribute=5:Attribute* domain=7:string
Attribute           name=1:string f=2:float i=3:int64 s=4:bytes t=5:TensorProto g=6:GraphProto floats=7:float* ints=8:int64* strings=9:bytes* type=20:int32
TensorProto         dims=1:int64* data_type=2:int32 string_data=6:bytes* name=8:string raw_data=9:bytes
ValueInfo           name=1:string type=2:TypeProto
TypeProto           tensor_type=1:TensorType
TensorType          elem_type=1:int32 shape=2:TensorShape
TensorShape         dim=1:Dim*
Dim                 dim_value=1:int64 dim_param=2:string
"""


@cache
def messages(language: str) -> dict[str, Any]:
    """Give the classes of the messages of `CORE_ML` or `ONNX`, by name."""
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    package = "core_ml" if language == CORE_ML else "onnx"
    # What is set is written, zeros too, in ONNX alone: its readers ask what is there.
    file = FileDescriptorProto(name=package, package=package, syntax="proto3" if language == CORE_ML else "proto2")
    known: dict[str, Any] = {}
    for message, *fields in (line.split() for line in language.strip().splitlines()):
        if message not in known:
            known[message] = file.message_type.add(name=message)
        for name, number, kind in (field.replace("=", ":").split(":") for field in fields):
            plain = kind.rstrip("*?")
            field = known[message].field.add(name=name, number=int(number))
            field.label = FieldDescriptorProto.LABEL_REPEATED if kind.endswith("*") else FieldDescriptorProto.LABEL_OPTIONAL
            if plain.islower() or plain[-2:].isdigit():
                field.type = getattr(FieldDescriptorProto, f"TYPE_{plain.upper()}")
            else:
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{package}.{plain}"
            if kind.endswith("?"):
                field.oneof_index, field.proto3_optional = len(known[message].oneof_decl), True
                known[message].oneof_decl.add(name=f"_{name}")
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in known}
