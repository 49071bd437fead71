"""From one form of a network to another: trained to hardware, NIR in and out, netx out, and the export folder.

A name is loaded when it is asked for, since `lower` needs torch and the others do not.
"""

from typing import TYPE_CHECKING

from fsnn_lava import lazy_names

if TYPE_CHECKING:
    from fsnn_lava.conversion.export_folder import (
        NETWORK_FILES as NETWORK_FILES,
        Deployed as Deployed,
        calibration_codes as calibration_codes,
        input_facts as input_facts,
        load as load,
        load_deployed as load_deployed,
        network_hashes as network_hashes,
        samples_to_test as samples_to_test,
        save as save,
        set_aside as set_aside,
        training_samples as training_samples,
        write_export as write_export,
    )
    from fsnn_lava.conversion.lowering import lower as lower, run_torch as run_torch
    from fsnn_lava.conversion.netx_write import write_netx as write_netx
    from fsnn_lava.conversion.nir_plain import (
        PlainForm as PlainForm,
        plain_differences as plain_differences,
        write_plain_nir as write_plain_nir,
    )
    from fsnn_lava.conversion.nir_read import import_nir as import_nir, read_nir as read_nir
    from fsnn_lava.conversion.nir_write import write_nir as write_nir
    from fsnn_lava.conversion.zoo import (
        ZOO as ZOO,
        ZooCard as ZooCard,
        from_zoo as from_zoo,
        take_from_zoo as take_from_zoo,
        write_card as write_card,
        zoo_card as zoo_card,
        zoo_cards as zoo_cards,
    )

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "export_folder": "NETWORK_FILES Deployed calibration_codes input_facts load load_deployed network_hashes "
        "samples_to_test save set_aside training_samples write_export",
        "lowering": "lower run_torch",
        "netx_write": "write_netx",
        "nir_plain": "PlainForm plain_differences write_plain_nir",
        "nir_read": "import_nir read_nir",
        "nir_write": "write_nir",
        "zoo": "ZOO ZooCard from_zoo take_from_zoo write_card zoo_card zoo_cards",
    },
)
